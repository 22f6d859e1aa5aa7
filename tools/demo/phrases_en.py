"""English sentences of the demo grammar: templates and the words that fill their slots.

They are written as with inverse text normalisation. The spoken form is lower case, with numbers in words and
without punctuation. A slot in capitals is a number (`numbers.py`).
"""

SLOTS = {
    "room": "kitchen|bedroom|bathroom|garden|garage|office|living room|hall",
    "device": "light|lamp|heater|radio|fan|television|computer|alarm|music",
    "thing": "door|window|box|curtain|gate|book",
    "place": "library|museum|bank|station|airport|hotel|hospital|school|market|park|cinema|pharmacy|zoo|"
    "restaurant|supermarket|post office",
    "name": "Anna|David|Emma|Frank|Helen|Jack|Kate|Mary|Oliver|Peter|Sarah|Tom",
    "weekday": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December",
    "day": "today|tomorrow|this morning|this afternoon|tonight|this evening|next week|on the weekend",
    "past": "yesterday|last night|last week|last month|last year",
    "weather": "sunny|cloudy|rainy|windy|cold|warm|hot|foggy|nice|terrible",
    "food": "apples|bananas|bread|butter|cheese|chicken|chocolate|coffee|eggs|fish|juice|milk|noodles|oranges|"
    "rice|salad|soup|sugar|tea|water",
    "item": "book|ticket|ticket to London|shirt|jacket|camera|phone|bicycle|umbrella|cake|newspaper|hat",
    "things": "apples|books|cups|dogs|houses|letters|people|pictures|stamps|students|tickets|trees",
    "feeling": "happy|tired|hungry|thirsty|busy|ready|late|sick|fine|very sorry|a little nervous",
    "relative": "mother|father|sister|brother|friend|daughter|son|teacher|neighbor|boss",
    "job": "doctor|driver|nurse|farmer|student|writer|singer|lawyer|cook|engineer",
    "language": "English|Chinese|French|German|Spanish|Japanese",
    "genre": "jazz|rock|classical music|old songs|the news|my favorite song",
    "task": "buy some {food}|call {name}|wash the car|feed the cat|water the flowers|pay the bill|"
    "clean the kitchen|write a letter|do my homework|take a walk",
    "color": "red|blue|green|yellow|white|black|brown",
    "unit": "minutes|hours|seconds|days|kilometers|dollars",
    "city": "London|Paris|Berlin|New York|Boston|Beijing|Shanghai|Tokyo",
}

TEMPLATES = {
    "digits": ["{DIGITS}"],
    "numbers": [
        "{NUMBER}", "{NUMBER}", "the answer is {NUMBER}.", "my room is number {NUMBER}.", "open page {SMALL}.",
        "there are {SMALL} {things} in the {room}.", "I counted {NUMBER} {things}.", "take bus number {SMALL}.",
        "it is {NUMBER} kilometers from here.", "it costs {NUMBER} dollars.", "wait {SMALL} {unit}.",
        "we need {SMALL} more {things}.", "{SMALL} plus {SMALL} is {SMALL}.", "she is {SMALL} years old.",
    ],
    "times": [
        "{TIME}", "it is {TIME}.", "the meeting starts at {TIME}.", "wake me up at {TIME}.",
        "the train to {city} leaves at {TIME}.", "the bus comes at {TIME} {day}.", "I get up at {TIME} every day.",
        "dinner is at {TIME} {day}.", "can we meet at {TIME} {day}?", "what happened at {TIME} {past}?",
    ],
    "dates": [
        "{month} {ORDINAL}", "{weekday} {month} {ORDINAL}", "today is {weekday}.", "today is {month} {ORDINAL}.",
        "my birthday is on {month} {ORDINAL}.", "the party is on {weekday}.",
        "we will arrive on {month} {ORDINAL}.",
        "he was born in {YEAR}.", "the {place} was built in {YEAR}.", "are you free on {weekday}?",
    ],
    "commands": [
        "turn on the {device}.", "turn off the {device}.", "turn on the {device} in the {room}.",
        "turn off the {device} in the {room}.", "please open the {thing}.", "close the {thing} please.",
        "set the temperature to {SMALL} degrees.", "set a timer for {SMALL} minutes.", "set the alarm for {TIME}.",
        "play some {genre}.", "play {genre} in the {room}.", "call {name}.", "please call my {relative}.",
        "send a message to {name}.", "take me to the {place}.", "remind me to {task} {day}.",
        "remind me to {task} at {TIME}.", "show me the way to the {place}.", "stop the music.", "turn it down.",
        "put the {color} {item} on the table.", "read the message from {name}.",
        "add {food} to the shopping list.",
    ],
    "hours": [
        "the {place} is open from {HOUR} to {HOUR}.", "the {place} opens at {TIME}.",
        "the {place} closes at {TIME}.",
        "the {place} is closed on {weekday}.", "when does the {place} open?", "when does the {place} close {day}?",
        "the {place} is open from {weekday} to {weekday}.", "is the {place} open on {weekday}?",
    ],
    "everyday": [
        "how much is the {item}?", "how much is the {color} {item}?", "I would like {SMALL} {things} please.",
        "I would like some {food}.", "where is the {place}?", "is there a {place} near here?",
        "the weather is {weather} {day}.", "what is the weather like {day}?", "it will be {weather} {day}.",
        "I am {feeling}.", "are you {feeling}?", "my {relative} is {feeling}.", "my {relative} is a {job}.",
        "do you like {food}?", "I do not like {food}.", "we went to the {place} {past}.", "thank you very much.",
        "see you {day}.", "see you on {weekday}.", "nice to meet you.", "my name is {name}.",
        "good morning {name}.",
        "good night {name}.", "how are you {day}?", "what time is it?", "do you speak {language}?",
        "I am learning {language}.", "my {relative} lives in {city}.", "have you ever been to {city}?",
        "I am going to {city} {day}.", "{name} and {name} are at the {place}.", "what are you doing {day}?",
        "I will {task} {day}.", "can you {task} please?", "we have no {food} at home.",
        "I bought a {color} {item}.",
        "who is your {relative}?", "the {color} {item} is on the table.", "excuse me where is the {place}?",
        "I forgot my {item} at the {place}.", "let us go to the {place} {day}.", "I need a new {item}.",
        "{food} and {food} please.", "my {relative} met {name} at the {place} {past}.",
    ],
}  # fmt: skip

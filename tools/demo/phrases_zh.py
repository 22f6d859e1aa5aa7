"""Mandarin sentences of the demo grammar: templates and the words that fill their slots.

Spaces separate words for the tokenizer; texts contain none. Otherwise like `phrases_en.py`.
"""

SLOTS = {
    "room": "客厅|卧室|厨房|书房|浴室|办公室|车库|花园",
    "device": "灯|电视|空调|电脑|收音机|风扇|音乐|闹钟",
    "thing": "门|窗户|窗帘|箱子|书|大门",
    "place": "图书馆|博物馆|银行|车站|机场|酒店|医院|学校|超市|公园|电影院|药店|动物园|饭店|邮局|书店",
    "name": "小明|小红|王芳|李强|张伟|刘洋|陈静|老王|赵先生|周老师",
    "weekday": "星期一|星期二|星期三|星期四|星期五|星期六|星期天",
    "day": "今天|明天|后天|今天 上午|明天 下午|今天 晚上|下个 星期|周末",
    "past": "昨天|前天|昨天 晚上|上个 星期|上个月|去年",
    "weather": "晴天|多云|下雨|下雪|刮风|很 冷|很 热|很 好|不好|暖和",
    "food": "苹果|香蕉|面包|鸡蛋|牛奶|咖啡|茶|米饭|面条|鱼|鸡肉|蔬菜|水果|橙汁|巧克力|水|汤|糖",
    "item": "手机|照相机|自行车|雨伞|衣服|帽子|报纸|蛋糕|火车票|电影票|钥匙|书包",
    "things": "个 苹果|本 书|杯 水|只 狗|封 信|个 人|张 照片|个 学生|张 票|棵 树",
    "feeling": "高兴|累|饿|渴|忙|难过|紧张|生气",
    "relative": "妈妈|爸爸|姐姐|弟弟|朋友|女儿|儿子|老师|邻居|老板",
    "job": "医生|司机|护士|农民|学生|作家|歌手|律师|厨师|工程师",
    "language": "英语|中文|法语|德语|日语",
    "genre": "音乐|老歌|新闻|我 喜欢 的 歌|古典 音乐",
    "task": "买 {food}|给 {name} 打电话|洗车|喂猫|浇花|交 电费|打扫 厨房|写信|做 作业|散步|买 {item}",
    "color": "红色|蓝色|绿色|黄色|白色|黑色",
    "city": "北京|上海|广州|天津|南京|成都|伦敦|巴黎",
    "unit": "分钟|小时|天|公里|块 钱",
}

TEMPLATES = {
    "digits": ["{DIGITS}"],
    "numbers": [
        "{NUMBER}", "{NUMBER}", "答案 是 {NUMBER}。", "我 的 房间 号 是 {NUMBER}。", "请 翻到 第 {SMALL} 页。",
        "{room} 里 有 {SMALL} {things}。", "一共 有 {NUMBER} {things}。", "坐 {SMALL} 路 公共汽车。",
        "离 这里 有 {NUMBER} 公里。", "这个 要 {NUMBER} 块 钱。", "等 {SMALL} {unit}。",
        "还 要 {SMALL} {things}。",
        "{SMALL} 加 {SMALL} 等于 {SMALL}。", "她 今年 {SMALL} 岁。",
    ],
    "times": [
        "{TIME}", "现在 是 {TIME}。", "会议 {TIME} 开始。", "{TIME} 叫 我 起床。", "去 {city} 的 火车 {TIME} 开。",
        "{day} {TIME} 有 车 吗？", "我 每天 {TIME} 起床。", "{day} {TIME} 吃饭。", "我们 {day} {TIME} 见面。",
        "{past} {TIME} 你 在 哪里？",
    ],
    "dates": [
        "{DATE}", "{DATE} {weekday}", "今天 是 {weekday}。", "今天 是 {DATE}。", "我 的 生日 是 {DATE}。",
        "{weekday} 有 聚会。", "我们 {DATE} 到。", "他 是 {YEAR} 出生 的。", "{place} 是 {YEAR} 建 的。",
        "你 {weekday} 有空 吗？",
    ],
    "commands": [
        "打开 {device}。", "关上 {device}。", "打开 {room} 的 {device}。", "关掉 {room} 的 {device}。",
        "请 打开 {thing}。",
        "请 关上 {thing}。", "把 温度 调到 {SMALL} 度。", "{SMALL} 分钟 后 提醒 我。", "把 闹钟 定在 {TIME}。",
        "播放 {genre}。", "在 {room} 播放 {genre}。", "打电话 给 {name}。", "打电话 给 我 {relative}。",
        "给 {name} 发 信息。", "带 我 去 {place}。", "提醒 我 {day} {task}。", "提醒 我 {TIME} {task}。",
        "去 {place} 怎么 走？", "停止 播放。", "声音 小 一点。", "把 {color} 的 {item} 放在 桌子 上。",
        "读 一下 {name} 的 信息。", "购物 单 里 加上 {food}。",
    ],
    "hours": [
        "{place} 开放 时间 早上 {HOUR} 至 下午 {HOUR}。", "{place} {TIME} 开门。", "{place} {TIME} 关门。",
        "{place} {weekday} 不 开门。", "{place} 什么 时候 开门？", "{place} {day} 几点 关门？",
        "{place} 从 {weekday} 到 {weekday} 开门。", "{place} {weekday} 开门 吗？",
    ],
    "everyday": [
        "这个 {item} 多少 钱？", "{color} 的 {item} 多少 钱？", "我 要 {SMALL} {things}。",
        "我 想 要 一点 {food}。",
        "{place} 在 哪里？", "附近 有 {place} 吗？", "{day} 天气 {weather}。", "{day} 天气 怎么样？",
        "{past} 天气 {weather}。",
        "我 很 {feeling}。", "你 {feeling} 吗？", "我 {relative} 很 {feeling}。", "我 {relative} 是 {job}。",
        "你 喜欢 {food} 吗？", "我 不 喜欢 {food}。", "我们 {past} 去 了 {place}。", "谢谢 大家。", "非常 感谢。",
        "{day} 见。", "{weekday} 见。", "很 高兴 认识 你。", "我 叫 {name}。", "早上 好 {name}。", "晚安 {name}。",
        "你 {day} 好 吗？", "现在 几点 了？", "你 会 说 {language} 吗？", "我 在 学 {language}。",
        "我 {relative} 住 在 {city}。",
        "你 去过 {city} 吗？", "我 {day} 去 {city}。", "{name} 和 {name} 在 {place}。", "你 {day} 做 什么？",
        "我 {day} {task}。", "请 你 {task}。", "家里 没有 {food} 了。", "我 买 了 {color} 的 {item}。",
        "谁 是 你 {relative}？",
        "{color} 的 {item} 在 桌子 上。", "请问 {place} 在 哪里？", "我 的 {item} 忘 在 {place} 了。",
        "我们 {day} 去 {place} 吧。", "我 需要 新 的 {item}。", "请 给 我 {food} 和 {food}。",
        "我 {relative} {past} 在 {place} 见到 了 {name}。",
    ],
}  # fmt: skip

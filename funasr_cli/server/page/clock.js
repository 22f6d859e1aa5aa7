// Write times and lengths for readers.

/** Return seconds as minutes and seconds, with hours if there are any: 3723.4 is "1:02:03". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const tail = `${String(rest).padStart(2, "0")}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

/** Return a length in words, rounded as on the command line: "0.4 s", "12 s", "3:05 min", "1:02:03 h". */
export function length(seconds) {
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return `${clock(whole)} ${whole < 3600 ? "min" : "h"}`;
}

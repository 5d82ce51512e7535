// Times within a recording, in print: 0:05.2, 12:30, 1:02:03.

/** Minutes and seconds, with hours where there are any. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const all = Math.round(seconds * unit) / unit;
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor(all / 60) % 60;
  const rest = (all % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, '0');
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

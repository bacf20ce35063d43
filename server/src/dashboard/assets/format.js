// Times, durations and sizes for people.

/** A length of time in milliseconds. */
export function duration(ms) {
  if (ms === null || ms === undefined) return null;
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 60) return `${minutes} min ${Math.floor(ms / 1000) % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A point in time, in the browser's own zone. */
export function time(ms) {
  return ms === null || ms === undefined ? null : new Date(ms).toLocaleString();
}

/** A number of bytes. */
export function bytes(count) {
  if (count === null || count === undefined) return null;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit += 1) count /= 1024;
  return `${unit === 0 ? count : count.toFixed(1)} ${units[unit]}`;
}

/** How long a job has run, or ran. */
export function ran(job, nowMs) {
  return job.started_ms === null ? null : duration((job.ended_ms ?? nowMs) - job.started_ms);
}

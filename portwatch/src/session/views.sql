-- What a session is asked through. The columns of `events` are the fields of the event schema; `ts` is
-- text in RFC 3339, `time` the same as nanoseconds since the Unix epoch, which compares faster.

CREATE VIEW runs AS SELECT
  r.id AS run,
  strftime('%Y-%m-%dT%H:%M:%S', r.began / 1000000000, 'unixepoch') || printf('.%09dZ', r.began % 1000000000) AS began,
  strftime('%Y-%m-%dT%H:%M:%S', f.ended / 1000000000, 'unixepoch') || printf('.%09dZ', f.ended % 1000000000) AS ended,
  f.reason, f.complete, f.accounts,
  r.host, r.kernel, r.arch, r.boot, r.netns, r.version, r.source, r.not_observed, r.command, r.plan, r.clock
FROM raw_run r LEFT JOIN raw_finish f ON f.run = r.id;

CREATE VIEW events AS SELECT
  strftime('%Y-%m-%dT%H:%M:%S', e.ts / 1000000000, 'unixepoch') || printf('.%09dZ', e.ts % 1000000000) AS ts,
  e.id - r.before AS seq,
  CASE e.kind WHEN 0 THEN 'bind' WHEN 1 THEN 'listen' WHEN 2 THEN 'connect' WHEN 3 THEN 'accept'
              WHEN 4 THEN 'close' WHEN 5 THEN 'reset' WHEN 6 THEN 'lost' END AS event,
  w.origin, w.proto, w.family,
  l.address AS laddr, e.lport, m.address AS raddr, e.rport, e.sock, w.netns,
  o.pid, o.tid, o.ppid, o.uid, o.gid, o.comm,
  p.exe, p.args, p.user, p.parents, p.cgroup, p.container, p.unit,
  w.error, e.backlog, e.latency_us, e.duration_us, e.rx_bytes, e.tx_bytes, e.rtt_us, e.retrans,
  e.accepted, w.cause, w.reason, e.holders, e.count, w.service,
  e.ts AS time, r.id AS run, e.id AS id
FROM raw_event e
JOIN raw_what w ON w.id = e.what
JOIN raw_run r ON r.id = (SELECT max(id) FROM raw_run WHERE before < e.id)
LEFT JOIN raw_owner o ON o.id = e.owner
LEFT JOIN raw_process p ON p.id = o.process
LEFT JOIN raw_address l ON l.id = e.local
LEFT JOIN raw_address m ON m.id = e.remote;

-- Programs that owned a socket or tried to get one. `ended` and `status` are those of the process.
CREATE VIEW processes AS SELECT
  p.id AS process, o.pid, o.ppid, o.uid, p.user, o.comm, p.exe, p.args, p.parents, p.cgroup,
  p.container, p.unit, p.blake3,
  strftime('%Y-%m-%dT%H:%M:%S', p.started / 1000000000, 'unixepoch') || printf('.%09dZ', p.started % 1000000000) AS started,
  strftime('%Y-%m-%dT%H:%M:%S', x.ts / 1000000000, 'unixepoch') || printf('.%09dZ', x.ts % 1000000000) AS ended,
  CASE WHEN x.status & 127 = 0 THEN x.status >> 8 END AS exit_code,
  CASE WHEN x.status & 127 <> 0 THEN x.status & 127 END AS signal
FROM raw_process p
JOIN (SELECT process, min(id) AS id FROM raw_owner GROUP BY process) first ON first.process = p.id
JOIN raw_owner o ON o.id = first.id
LEFT JOIN raw_exit x ON x.id = (
  SELECT min(id) FROM raw_exit WHERE pid = o.pid AND (p.started IS NULL OR ts >= p.started))
WHERE o.pid IS NOT NULL;

-- The life of each listener: from its bind and listen through what it accepted to its end. A listen of
-- what listens already is of the same life, and changes its backlog.
CREATE VIEW listeners AS
WITH listen AS (
  SELECT l.id, l.sock,
    (SELECT min(c.id) FROM raw_event c WHERE c.kind = 4 AND c.sock = l.sock AND c.id > l.id) AS close,
    (SELECT max(r.id) FROM raw_run r WHERE r.before < l.id) AS run
  FROM raw_event l JOIN raw_what w ON w.id = l.what
  WHERE l.kind = 1 AND l.remote IS NULL AND w.error IS NULL),
life AS (
  SELECT min(id) AS id, max(id) AS last, close FROM listen
  GROUP BY sock, close, run, CASE WHEN sock IS NULL THEN id END)
SELECT
  w.proto, w.family, a.address AS laddr, l.lport, l.sock, w.netns,
  o.pid, o.ppid, o.uid, o.comm, p.exe, p.args, p.user, p.container, p.unit, w.service,
  last.backlog,
  strftime('%Y-%m-%dT%H:%M:%S', b.ts / 1000000000, 'unixepoch') || printf('.%09dZ', b.ts % 1000000000) AS bound,
  strftime('%Y-%m-%dT%H:%M:%S', l.ts / 1000000000, 'unixepoch') || printf('.%09dZ', l.ts % 1000000000) AS listened,
  (SELECT strftime('%Y-%m-%dT%H:%M:%S', t.ts / 1000000000, 'unixepoch') || printf('.%09dZ', t.ts % 1000000000)
   FROM raw_event t JOIN raw_what tw ON tw.id = t.what
   WHERE t.kind = 3 AND t.lport = l.lport AND t.id > l.id AND (c.id IS NULL OR t.id < c.id)
     AND tw.netns IS w.netns AND tw.proto IS w.proto
   ORDER BY t.id LIMIT 1) AS first_accept,
  c.accepted,
  strftime('%Y-%m-%dT%H:%M:%S', c.ts / 1000000000, 'unixepoch') || printf('.%09dZ', c.ts % 1000000000) AS closed,
  (c.ts - l.ts) / 1000 AS lifetime_us
FROM life
JOIN raw_event l ON l.id = life.id
JOIN raw_event last ON last.id = life.last
JOIN raw_what w ON w.id = l.what
LEFT JOIN raw_event b ON b.id = (
  SELECT max(x.id) FROM raw_event x JOIN raw_what xw ON xw.id = x.what
  WHERE x.lport = l.lport AND x.remote IS NULL AND x.kind = 0 AND xw.error IS NULL
    AND x.sock = l.sock AND x.id < l.id)
LEFT JOIN raw_event c ON c.id = life.close
LEFT JOIN raw_owner o ON o.id = l.owner
LEFT JOIN raw_process p ON p.id = o.process
LEFT JOIN raw_address a ON a.id = l.local
ORDER BY l.id;

-- Listeners that lived for less than a second.
CREATE VIEW short_lived AS SELECT * FROM listeners WHERE lifetime_us < 1000000;

-- One row for each end of a connection and each attempt, with how it began and how it ended: an attempt
-- began with its SYN, what was accepted when it came into the queue.
CREATE VIEW connections AS SELECT
  CASE e.kind WHEN 2 THEN 'out' ELSE 'in' END AS direction,
  w.proto, w.family, a.address AS laddr, e.lport, m.address AS raddr, e.rport, e.sock, w.netns,
  o.pid, o.ppid, o.uid, o.comm, p.exe, p.args, p.user, p.container, p.unit, w.service,
  strftime('%Y-%m-%dT%H:%M:%S', (e.ts - ifnull(e.latency_us, 0) * 1000) / 1000000000, 'unixepoch')
    || printf('.%09dZ', (e.ts - ifnull(e.latency_us, 0) * 1000) % 1000000000) AS began,
  e.latency_us,
  CASE WHEN w.error IS NOT NULL THEN w.error WHEN c.id IS NULL THEN 'open' ELSE cw.cause END AS outcome,
  strftime('%Y-%m-%dT%H:%M:%S', c.ts / 1000000000, 'unixepoch') || printf('.%09dZ', c.ts % 1000000000) AS closed,
  c.duration_us, c.rx_bytes, c.tx_bytes, c.rtt_us, c.retrans
FROM raw_event e
JOIN raw_what w ON w.id = e.what
LEFT JOIN raw_event c ON w.error IS NULL AND c.id = (
  SELECT min(x.id) FROM raw_event x WHERE x.kind = 4 AND x.sock = e.sock AND x.id > e.id)
LEFT JOIN raw_what cw ON cw.id = c.what
LEFT JOIN raw_owner o ON o.id = e.owner
LEFT JOIN raw_process p ON p.id = o.process
LEFT JOIN raw_address a ON a.id = e.local
LEFT JOIN raw_address m ON m.id = e.remote
WHERE e.kind IN (2, 3) AND w.error IS NOT 'EINPROGRESS';

-- What did not succeed.
CREATE VIEW failures AS SELECT * FROM events WHERE error IS NOT NULL AND error <> 'EINPROGRESS';

-- A portwatch session, version 1. What to read are the views at the end; the tables raw_* are how
-- they are stored: what repeats is kept once and referred to by number. Rows are only ever added, and
-- each batch of them is chained by a hash (raw_batch).
-- Times are nanoseconds since the Unix epoch. Numbers of 64 bits are stored as signed ones with the same bits.

-- One recording. A session may hold several.
CREATE TABLE raw_run(
  id INTEGER PRIMARY KEY,
  began INTEGER NOT NULL,
  before INTEGER NOT NULL,    -- events of the session before it
  host TEXT,
  kernel TEXT,                -- release
  arch TEXT,
  boot TEXT,                  -- boot id
  netns INTEGER,              -- inode number of the network namespace of portwatch itself
  version TEXT NOT NULL,      -- of portwatch
  source TEXT NOT NULL,       -- "tracepoint probes", "polling", …
  not_observed TEXT,          -- what this kernel does not show
  command TEXT,               -- JSON array, when only a command was followed
  plan TEXT,                  -- JSON, as `doctor -o json` has it
  clock TEXT                  -- JSON: boot and wall clock read at the same moment
) STRICT;

-- How a recording ended. Missing when it was killed.
CREATE TABLE raw_finish(
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES raw_run,
  ended INTEGER NOT NULL,
  reason TEXT NOT NULL,
  complete INTEGER NOT NULL,  -- 1: nothing lost
  accounts TEXT NOT NULL      -- JSON: what was lost, by kind of loss
) STRICT;

CREATE TABLE raw_address(
  id INTEGER PRIMARY KEY,
  address TEXT NOT NULL
) STRICT;

-- What happened, without who, where from and how long.
CREATE TABLE raw_what(
  id INTEGER PRIMARY KEY,
  origin TEXT NOT NULL,
  proto TEXT,
  family TEXT,
  netns INTEGER,
  error TEXT,
  errno INTEGER,
  cause TEXT,
  reason TEXT,
  service TEXT
) STRICT;

-- A program that a process runs, in its surroundings. Another exec, or other parents, make another row.
CREATE TABLE raw_process(
  id INTEGER PRIMARY KEY,
  pid INTEGER,
  exe TEXT,
  args TEXT,                  -- JSON array
  user TEXT,
  parents TEXT,               -- JSON, nearest first
  cgroup TEXT,
  container TEXT,
  unit TEXT,
  started INTEGER,            -- when the process was started
  blake3 TEXT                 -- of the executable, where asked for
) STRICT;

-- Who acts.
CREATE TABLE raw_owner(
  id INTEGER PRIMARY KEY,
  process INTEGER REFERENCES raw_process,
  pid INTEGER,
  tid INTEGER,
  ppid INTEGER,
  uid INTEGER,
  gid INTEGER,
  comm ANY                    -- a blob when it is not UTF-8
) STRICT;

-- The end of a process that owns something.
CREATE TABLE raw_exit(
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES raw_run,
  pid INTEGER NOT NULL,
  ts INTEGER NOT NULL,
  status INTEGER              -- as wait(2) gives it: code << 8, or the number of the signal
) STRICT;

-- Ids count the events of the whole session, in the order in which they were told.
CREATE TABLE raw_event(
  id INTEGER PRIMARY KEY,
  ts INTEGER NOT NULL,
  kind INTEGER NOT NULL,      -- 0 bind, 1 listen, 2 connect, 3 accept, 4 close, 5 reset, 6 lost
  what INTEGER NOT NULL REFERENCES raw_what,
  owner INTEGER REFERENCES raw_owner,
  local INTEGER REFERENCES raw_address,
  lport INTEGER,
  remote INTEGER REFERENCES raw_address,
  rport INTEGER,
  sock INTEGER,
  inode INTEGER,              -- from snapshots
  latency_us INTEGER,
  duration_us INTEGER,
  rx_bytes INTEGER,
  tx_bytes INTEGER,
  rtt_us INTEGER,
  retrans INTEGER,
  accepted INTEGER,
  backlog INTEGER,
  count INTEGER,
  holders TEXT                -- JSON
) STRICT;

-- The whole table at a moment, so that nobody needs to go through all events to get there. The first
-- one of a run is what was open before it.
CREATE TABLE raw_checkpoint(
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES raw_run,
  event INTEGER NOT NULL,     -- the last one that is in it
  ts INTEGER NOT NULL
) STRICT;

-- A socket of a checkpoint: the event that brought it there, and what is known besides.
CREATE TABLE raw_open(
  id INTEGER PRIMARY KEY,
  checkpoint INTEGER NOT NULL REFERENCES raw_checkpoint,
  ts INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  what INTEGER NOT NULL REFERENCES raw_what,
  owner INTEGER REFERENCES raw_owner,
  local INTEGER REFERENCES raw_address,
  lport INTEGER,
  remote INTEGER REFERENCES raw_address,
  rport INTEGER,
  sock INTEGER,
  inode INTEGER,
  latency_us INTEGER,
  duration_us INTEGER,
  rx_bytes INTEGER,
  tx_bytes INTEGER,
  rtt_us INTEGER,
  retrans INTEGER,
  accepted INTEGER,
  backlog INTEGER,
  count INTEGER,
  holders TEXT,
  state TEXT NOT NULL,
  since INTEGER,
  recv_queue INTEGER,
  send_queue INTEGER,
  v6only INTEGER,
  bound INTEGER NOT NULL,     -- 1: bound before it was connected
  told INTEGER NOT NULL       -- 1: an event is to tell of its end
) STRICT;

-- What was written in one transaction: up to which row of each table, and the hash of all of it and of
-- the hash and the signature of the batch before.
CREATE TABLE raw_batch(
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL,
  first_ts INTEGER,           -- of its events; they may be a little out of order
  last_ts INTEGER,
  runs INTEGER NOT NULL,
  finishes INTEGER NOT NULL,
  addresses INTEGER NOT NULL,
  whats INTEGER NOT NULL,
  processes INTEGER NOT NULL,
  owners INTEGER NOT NULL,
  exits INTEGER NOT NULL,
  events INTEGER NOT NULL,
  checkpoints INTEGER NOT NULL,
  opens INTEGER NOT NULL,
  hash BLOB NOT NULL,         -- BLAKE3
  signature BLOB              -- ed25519 of the hash, where asked for
) STRICT;

-- Servers and udp sockets, for questions about a port.
CREATE INDEX raw_event_bound ON raw_event(lport) WHERE remote IS NULL;
-- From a process to its end.
CREATE INDEX raw_exit_pid ON raw_exit(pid);
-- Losses: seldom, and asked for by everyone.
CREATE INDEX raw_event_lost ON raw_event(id) WHERE kind = 6;
-- From a listener to what it accepted, and from a connection to its end.
CREATE INDEX raw_event_accepted ON raw_event(lport) WHERE kind = 3;
CREATE INDEX raw_event_closed ON raw_event(sock) WHERE kind = 4;

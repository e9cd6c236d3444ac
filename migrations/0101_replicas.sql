-- Version 101: how far a replica has come. The row's instant is written on the primary, by its clock, and arrives at a
-- replica after all that was committed before.

create table replication_heartbeat (
  id integer not null primary key,
  beat_at {datetime} not null
) {table};

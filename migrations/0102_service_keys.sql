-- Version 102: the keys that daemons of one cloud show each other who they are with.

create table service_keys (
  name varchar(64) not null primary key,
  secret varchar(64) not null,
  created_at {datetime} not null
) {table};

-- Version 103: who holds a daemon's name, and what was moved away from hosts that are gone.

-- The installation that holds the lease: it may take the name again at once, another waits until the lease is over.
alter table services add column holder varchar(255);

-- Instances that an administrator took from a host. What that host still has of them when it comes back is to go.
create table evacuations (
  id {id}, {common}, {live},
  instance_id integer not null,
  host varchar(255) not null,
  -- The epoch that the instance began with by it.
  epoch integer not null,
  constraint uq_evacuations_instance unique (host, instance_id, live),
  constraint fk_evacuations_instance foreign key (instance_id) references instances (id)
) {table};

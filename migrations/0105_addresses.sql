-- Version 105: hosts know the addresses of each other.

-- Where a daemon's host is reached by other hosts; null for daemons that have no guests to carry frames for.
alter table services add column address varchar(39);

-- Version 104: schedulers read only the compute hosts that changed.

create index ix_compute_nodes_changed on compute_nodes (updated_at);
create index ix_services_reported on services ("binary", updated_at);

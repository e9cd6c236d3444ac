-- Version 108: a network's host reads only the addresses that changed. Their time comes first, so that nobody who looks
-- for free addresses of one network takes this index for a good one.

create index ix_fixed_ips_changed on fixed_ips (updated_at, network_id);

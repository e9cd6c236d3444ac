-- Version 106: networks with a router on each host, and VPNs that follow the host of their network.

alter table networks add column multi_host {false};
-- Whose own address was written as that of the VPN; nobody's where an administrator wrote it.
alter table networks add column vpn_host varchar(255);
-- The host that has the address itself, as the router of its guests.
alter table fixed_ips add column host varchar(255);
create unique index uq_fixed_ips_host on fixed_ips (network_id, host, live);
create index ix_fixed_ips_host on fixed_ips (host);

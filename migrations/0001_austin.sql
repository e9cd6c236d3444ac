-- Version 1: the tables of Austin, in the shape Bexar left them, with the constraints they lacked.
-- {marks} are types that differ by engine (crates/db/src/dialect.rs). Statements end with a semicolon at the end of a
-- line. `live` is 1, and NULL once the row is deleted: a unique key that contains it lets the name be used again.

create table services (
  id {id}, {common}, {live},
  host varchar(255) not null,
  "binary" varchar(255) not null,
  topic varchar(255) not null,
  report_count integer not null default 0,
  disabled {false},
  availability_zone varchar(255) not null default 'nova',
  -- Ours: who may call himself this service, by the database's clock.
  epoch integer not null default 0,
  lease_until {datetime},
  constraint uq_services_host unique (host, "binary", live)
) {table};

create table instances (
  id {id}, {common}, {live},
  internal_id integer,
  admin_pass varchar(255),
  user_id varchar(255) not null,
  project_id varchar(255) not null,
  image_id varchar(255) not null,
  kernel_id varchar(255),
  ramdisk_id varchar(255),
  server_name varchar(255),
  launch_index integer not null default 0,
  key_name varchar(255),
  key_data {text},
  state integer,
  state_description varchar(255),
  memory_mb integer not null,
  vcpus integer not null,
  local_gb integer not null,
  hostname varchar(255),
  host varchar(255),
  instance_type varchar(255) not null,
  user_data {text},
  reservation_id varchar(255) not null,
  mac_address varchar(255) not null,
  scheduled_at {datetime},
  launched_at {datetime},
  terminated_at {datetime},
  availability_zone varchar(255),
  display_name varchar(255),
  display_description varchar(255),
  locked {false},
  -- Ours: the two words of design §5, why, and who may write.
  vm_state varchar(32) not null,
  task_state varchar(32),
  state_reason_code varchar(255),
  state_reason {text},
  epoch integer not null default 0,
  lease_until {datetime},
  client_token varchar(255),
  root_device_name varchar(255) not null default '/dev/sda1',
  root_disk_format varchar(32),
  metadata_endpoint varchar(16) not null default 'enabled',
  metadata_tokens varchar(16) not null default 'optional',
  metadata_hop_limit integer not null default 1,
  constraint uq_instances_mac unique (mac_address, live)
) {table};
create index ix_instances_project on instances (project_id, id);
create index ix_instances_task on instances (host, task_state);
create index ix_instances_host on instances (host, vm_state);
create index ix_instances_reservation on instances (reservation_id, launch_index);
create index ix_instances_over on instances (vm_state, updated_at);

create table networks (
  id {id}, {common}, {live},
  injected {false},
  cidr varchar(255) not null,
  cidr_v6 varchar(255),
  ra_server varchar(255),
  netmask varchar(255),
  bridge varchar(255),
  gateway varchar(255),
  broadcast varchar(255),
  dns varchar(255),
  vlan integer,
  vpn_public_address varchar(255),
  vpn_public_port integer,
  vpn_private_address varchar(255),
  dhcp_start varchar(255),
  project_id varchar(255),
  host varchar(255),
  -- Cactus's name, and ours: which host serves it, and until when.
  label varchar(255),
  epoch integer not null default 0,
  lease_until {datetime},
  constraint uq_networks_cidr unique (cidr, live),
  constraint uq_networks_cidr_v6 unique (cidr_v6, live),
  constraint uq_networks_vlan unique (vlan, live),
  constraint uq_networks_vpn unique (vpn_public_address, vpn_public_port, live),
  constraint uq_networks_project unique (project_id, live)
) {table};
create index ix_networks_host on networks (host);

create table fixed_ips (
  id {id}, {common}, {live},
  address varchar(255) not null,
  network_id integer,
  instance_id integer,
  allocated {false},
  leased {false},
  reserved {false},
  -- Ours: until then nobody gets the address, for the lease of its last holder may still run.
  free_after {datetime},
  constraint uq_fixed_ips_address unique (address, live),
  constraint uq_fixed_ips_instance unique (instance_id, live),
  constraint fk_fixed_ips_network foreign key (network_id) references networks (id),
  constraint fk_fixed_ips_instance foreign key (instance_id) references instances (id)
) {table};
create index ix_fixed_ips_free on fixed_ips (network_id, instance_id, reserved, id);

create table floating_ips (
  id {id}, {common}, {live},
  address varchar(255) not null,
  fixed_ip_id integer,
  project_id varchar(255),
  host varchar(255),
  constraint uq_floating_ips_address unique (address, live),
  constraint uq_floating_ips_fixed_ip unique (fixed_ip_id, live),
  constraint fk_floating_ips_fixed_ip foreign key (fixed_ip_id) references fixed_ips (id)
) {table};
create index ix_floating_ips_project on floating_ips (project_id, id);
create index ix_floating_ips_host on floating_ips (host);

create table security_groups (
  id {id}, {common}, {live},
  name varchar(255) not null,
  description varchar(255),
  user_id varchar(255) not null,
  project_id varchar(255) not null,
  -- Ours: counts changes of the rules and of the members.
  version integer not null default 1,
  constraint uq_security_groups_name unique (project_id, name, live)
) {table};

create table security_group_rules (
  id {id}, {common}, {live},
  parent_group_id integer not null,
  protocol varchar(5),
  from_port integer,
  to_port integer,
  cidr varchar(255),
  group_id integer,
  -- Ours: the whole rule as one text, so that the same rule cannot be there twice.
  signature varchar(255),
  constraint uq_security_group_rules unique (parent_group_id, signature, live),
  constraint fk_security_group_rules_parent foreign key (parent_group_id) references security_groups (id),
  constraint fk_security_group_rules_source foreign key (group_id) references security_groups (id)
) {table};
create index ix_security_group_rules_source on security_group_rules (group_id);

create table security_group_instance_association (
  id {id}, {common}, {live},
  security_group_id integer not null,
  instance_id integer not null,
  constraint uq_group_members unique (security_group_id, instance_id, live),
  constraint fk_group_members_group foreign key (security_group_id) references security_groups (id),
  constraint fk_group_members_instance foreign key (instance_id) references instances (id)
) {table};
create index ix_group_members_instance on security_group_instance_association (instance_id);

create table volumes (
  id {id}, {common},
  ec2_id varchar(255),
  user_id varchar(255) not null,
  project_id varchar(255) not null,
  host varchar(255),
  size integer not null,
  availability_zone varchar(255),
  instance_id integer,
  mountpoint varchar(255),
  attach_time varchar(255),
  status varchar(255) not null,
  attach_status varchar(255) not null,
  scheduled_at {datetime},
  launched_at {datetime},
  terminated_at {datetime},
  display_name varchar(255),
  display_description varchar(255),
  constraint fk_volumes_instance foreign key (instance_id) references instances (id)
) {table};
create index ix_volumes_project on volumes (project_id, id);

create table export_devices (
  id {id}, {common}, {live},
  shelf_id integer not null,
  blade_id integer not null,
  volume_id integer,
  constraint uq_export_devices unique (shelf_id, blade_id, live),
  constraint fk_export_devices_volume foreign key (volume_id) references volumes (id)
) {table};

create table key_pairs (
  id {id}, {common}, {live},
  name varchar(255) not null,
  user_id varchar(255) not null,
  fingerprint varchar(255) not null,
  public_key {text} not null,
  constraint uq_key_pairs_name unique (user_id, name, live)
) {table};

create table quotas (
  id {id}, {common}, {live},
  project_id varchar(255) not null,
  instances integer,
  cores integer,
  volumes integer,
  gigabytes integer,
  floating_ips integer,
  constraint uq_quotas_project unique (project_id, live)
) {table};

create table users (
  id varchar(255) not null primary key, {common}, {live},
  name varchar(255) not null,
  access_key varchar(255) not null,
  secret_key {text} not null,
  is_admin {false},
  constraint uq_users_access_key unique (access_key, live)
) {table};

create table projects (
  id varchar(255) not null primary key, {common},
  name varchar(255) not null,
  description varchar(255),
  project_manager varchar(255) not null,
  constraint fk_projects_manager foreign key (project_manager) references users (id)
) {table};

create table user_project_association (
  {common},
  user_id varchar(255) not null,
  project_id varchar(255) not null,
  primary key (user_id, project_id),
  constraint fk_members_user foreign key (user_id) references users (id),
  constraint fk_members_project foreign key (project_id) references projects (id)
) {table};
create index ix_user_project_association_project on user_project_association (project_id);

create table user_role_association (
  {common},
  user_id varchar(255) not null,
  role varchar(255) not null,
  primary key (user_id, role),
  constraint fk_roles_user foreign key (user_id) references users (id)
) {table};

create table user_project_role_association (
  {common},
  user_id varchar(255) not null,
  project_id varchar(255) not null,
  role varchar(255) not null,
  primary key (user_id, project_id, role),
  constraint fk_project_roles_member foreign key (user_id, project_id)
    references user_project_association (user_id, project_id)
) {table};

create table auth_tokens (
  token_hash varchar(255) not null primary key, {common},
  user_id varchar(255),
  server_manageent_url varchar(255),
  storage_url varchar(255),
  cdn_management_url varchar(255)
) {table};

-- Version 100: our own tables. (3 to 14 are Cactus's numbers, so a database of Cactus is never taken for ours.)

create table compute_nodes (
  id {id}, {common}, {live},
  service_id integer,
  host varchar(255) not null,
  vcpus integer not null,
  memory_mb integer not null,
  local_gb integer not null,
  vcpus_used integer not null default 0,
  memory_mb_used integer not null default 0,
  local_gb_used integer not null default 0,
  memory_mb_reserved integer not null default 0,
  hypervisor_type {text},
  hypervisor_version integer,
  cpu_info {text},
  constraint uq_compute_nodes_host unique (host, live),
  constraint fk_compute_nodes_service foreign key (service_id) references services (id)
) {table};

create table images (
  id {id}, {common}, {live},
  kind varchar(16) not null,
  name varchar(255) not null,
  description {text} not null,
  location varchar(500) not null,
  owner_id varchar(255) not null,
  is_public {false},
  architecture varchar(32) not null,
  disk_format varchar(32) not null,
  kernel_id varchar(32),
  ramdisk_id varchar(32),
  state varchar(32) not null,
  state_reason {text},
  checksum varchar(64),
  size_bytes bigint,
  virtual_size_bytes bigint,
  constraint uq_images_location unique (owner_id, location, live)
) {table};
create index ix_images_public on images (is_public, id);
create index ix_images_state on images (state);

create table quota_usages (
  project_id varchar(255) not null primary key,
  instances integer not null default 0,
  cores integer not null default 0,
  volumes integer not null default 0,
  gigabytes integer not null default 0,
  floating_ips integer not null default 0,
  updated_at {datetime}
) {table};

create table client_tokens (
  id {id},
  project_id varchar(255) not null,
  token varchar(255) not null,
  digest varchar(128) not null,
  reservation_id varchar(255) not null,
  created_at {datetime} not null,
  constraint uq_client_tokens unique (project_id, token)
) {table};
create index ix_client_tokens_created on client_tokens (created_at);

create table instance_tags (
  id {id},
  instance_id integer not null,
  tag_key varchar(128) not null,
  tag_value varchar(256) not null,
  created_at {datetime} not null,
  constraint uq_instance_tags unique (instance_id, tag_key),
  constraint fk_instance_tags_instance foreign key (instance_id) references instances (id)
) {table};

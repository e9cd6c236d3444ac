-- Version 2: the tables that Bexar added.

create table certificates (
  id {id}, {common}, {live},
  user_id varchar(255) not null,
  project_id varchar(255) not null,
  file_name varchar(255) not null,
  constraint uq_certificates_file unique (file_name, live)
) {table};
create index ix_certificates_user on certificates (user_id, project_id);
create index ix_certificates_project on certificates (project_id);

create table console_pools (
  id {id}, {common},
  address varchar(255),
  username varchar(255),
  password varchar(255),
  console_type varchar(255),
  public_hostname varchar(255),
  host varchar(255),
  compute_host varchar(255)
) {table};

create table consoles (
  id {id}, {common},
  instance_name varchar(255),
  instance_id integer,
  password varchar(255),
  port integer,
  pool_id integer,
  constraint fk_consoles_pool foreign key (pool_id) references console_pools (id)
) {table};

create table instance_actions (
  id {id}, {common},
  instance_id integer not null,
  action varchar(255),
  error {text},
  constraint fk_instance_actions_instance foreign key (instance_id) references instances (id)
) {table};
create index ix_instance_actions_instance on instance_actions (instance_id);

create table iscsi_targets (
  id {id}, {common}, {live},
  target_num integer not null,
  host varchar(255) not null,
  volume_id integer,
  constraint uq_iscsi_targets unique (target_num, host, live),
  constraint fk_iscsi_targets_volume foreign key (volume_id) references volumes (id)
) {table};

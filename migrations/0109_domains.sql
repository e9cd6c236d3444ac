-- Version 109: addresses are what their projects asked for.

-- 'vpc' where the client asked for that; null is EC2 Classic's 'standard'. It changes nothing but what is answered.
alter table floating_ips add column domain varchar(8);

-- What an administrator says of a host beside its labels: taints, how often its CPU and memory may be reserved, and what of them is left to the host itself.
ALTER TABLE hosts ADD COLUMN policy_json TEXT COLLATE "C" NOT NULL DEFAULT '{}';

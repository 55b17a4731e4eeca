-- SPDX-License-Identifier: GPL-3.0-or-later
-- A store as release 0.1.0 left it: two providers, a home, a running machine, a placed future, a changed order.
BEGIN TRANSACTION;
CREATE TABLE event (
	id INTEGER NOT NULL,
	object VARCHAR(36) NOT NULL,
	time VARCHAR(20) NOT NULL,
	what VARCHAR(32) NOT NULL,
	details JSON NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(object) REFERENCES object (uuid) ON DELETE CASCADE
);
INSERT INTO "event" VALUES(1,'cd613e30-d8f1-4adf-91b7-584a2265b1f5','2026-11-01T12:00:00Z','ordered','{}');
INSERT INTO "event" VALUES(2,'78e51061-7311-48a3-82ce-6f447ed4d57b','2026-11-01T12:00:00Z','register','{"fields": ["address", "architecture", "cpus", "disk", "kind", "login", "memory", "site"]}');
INSERT INTO "event" VALUES(3,'cd613e30-d8f1-4adf-91b7-584a2265b1f5','2026-11-01T12:00:00Z','exist','{"state": "running", "provider": "provider1", "fields": ["address", "disk", "future", "generation", "provider", "site", "state", "addresses", "display", "goal", "image", "mac", "network", "python", "tags", "user"]}');
INSERT INTO "event" VALUES(4,'b2221a58-008a-45a6-8464-7159c324c985','2026-11-01T12:00:00Z','register','{"fields": ["address", "architecture", "cpus", "disk", "kind", "libvirt_version", "login", "memory", "qemu_version", "site", "virtualization"]}');
INSERT INTO "event" VALUES(5,'cd447e35-b8b6-48fe-842e-3d437204e52d','2026-11-01T12:00:00Z','register','{"fields": ["kind", "site"]}');
INSERT INTO "event" VALUES(6,'1a2b8f1f-f1fd-42a2-9755-d4c13a902931','2026-11-01T12:00:00Z','ordered','{}');
INSERT INTO "event" VALUES(7,'05b6e6e3-07d4-4edc-9143-1193e6c3f339','2026-11-01T12:00:00Z','ordered','{}');
INSERT INTO "event" VALUES(8,'05b6e6e3-07d4-4edc-9143-1193e6c3f339','2026-11-01T12:00:00Z','changed','{"fields": ["vcpus"]}');
CREATE TABLE futures (
	uuid VARCHAR(36) NOT NULL,
	PRIMARY KEY (uuid),
	FOREIGN KEY(uuid) REFERENCES object (uuid) ON DELETE CASCADE
);
INSERT INTO "futures" VALUES('1a2b8f1f-f1fd-42a2-9755-d4c13a902931');
INSERT INTO "futures" VALUES('05b6e6e3-07d4-4edc-9143-1193e6c3f339');
CREATE TABLE host (
	uuid VARCHAR(36) NOT NULL,
	name VARCHAR(253) NOT NULL,
	kind VARCHAR(16) NOT NULL,
	site VARCHAR(36),
	state VARCHAR(16),
	address VARCHAR(253),
	port INTEGER,
	login VARCHAR(64),
	identity_file TEXT,
	ssh_args TEXT,
	cpus INTEGER,
	memory BIGINT,
	disk BIGINT,
	generation INTEGER,
	facts JSON NOT NULL,
	seen VARCHAR(20),
	PRIMARY KEY (uuid),
	FOREIGN KEY(uuid) REFERENCES object (uuid) ON DELETE CASCADE,
	UNIQUE (name),
	FOREIGN KEY(site) REFERENCES site (uuid) ON DELETE SET NULL
);
INSERT INTO "host" VALUES('cd613e30-d8f1-4adf-91b7-584a2265b1f5','web1','machine','1e2feb89-414c-443c-9027-c4d1c386bbc4','running','198.18.1.5',NULL,NULL,NULL,NULL,1,536870912,1073741824,1,'{"image": {"name": "tiny@1", "digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "addresses": ["198.18.1.5"], "mac": "52:54:00:00:00:01", "display": {"type": "vnc", "host": "127.0.0.1", "port": 5900}, "network": "virtuoso", "goal": "balance", "tags": [], "user": "root", "python": "/usr/bin/python3"}','2026-11-01T12:00:00Z');
INSERT INTO "host" VALUES('78e51061-7311-48a3-82ce-6f447ed4d57b','provider1','provider','1e2feb89-414c-443c-9027-c4d1c386bbc4',NULL,'198.18.0.21',NULL,'root',NULL,NULL,4,17179869184,107374182400,NULL,'{"architecture": "x86_64", "cpus": 4, "memory": 17179869184, "disk": 107374182400, "memory_free": 16106127360, "load": 0.1, "images": [{"digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "names": ["tiny@1"]}]}','2026-11-01T12:00:00Z');
INSERT INTO "host" VALUES('b2221a58-008a-45a6-8464-7159c324c985','provider2','provider','9b810e76-6ec9-4286-a3ca-828dd5f4b3b2',NULL,'198.18.0.21',NULL,'root',NULL,NULL,4,17179869184,107374182400,NULL,'{"architecture": "x86_64", "cpus": 4, "memory": 17179869184, "disk": 107374182400, "memory_free": 16106127360, "load": 0.1, "images": [{"digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "names": ["tiny@1"]}], "disk_free": 5368709120, "virtualization": "kvm", "libvirt_version": "9.0.0", "qemu_version": "7.2.22", "memory_allocated": 536870912, "cpus_allocated": 1, "disk_allocated": 1073741824}','2026-11-01T12:00:00Z');
INSERT INTO "host" VALUES('cd447e35-b8b6-48fe-842e-3d437204e52d','home1','home','1e2feb89-414c-443c-9027-c4d1c386bbc4',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'{}','2026-11-01T12:00:00Z');
INSERT INTO "host" VALUES('1a2b8f1f-f1fd-42a2-9755-d4c13a902931','web2','machine',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,1073741824,NULL,NULL,'{}',NULL);
INSERT INTO "host" VALUES('05b6e6e3-07d4-4edc-9143-1193e6c3f339','web3','machine',NULL,NULL,NULL,NULL,NULL,NULL,NULL,2,536870912,NULL,NULL,'{}',NULL);
CREATE TABLE image (
	uuid VARCHAR(36) NOT NULL,
	name VARCHAR(64),
	version VARCHAR(64),
	digest VARCHAR(80) NOT NULL,
	virtual_size BIGINT,
	PRIMARY KEY (uuid),
	FOREIGN KEY(uuid) REFERENCES object (uuid) ON DELETE CASCADE
);
INSERT INTO "image" VALUES('e4b06ce6-0741-47a8-bce4-2c8218072e8c','tiny','1','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',NULL);
CREATE TABLE image_layer (
	image VARCHAR(36) NOT NULL,
	position INTEGER NOT NULL,
	layer VARCHAR(36) NOT NULL,
	PRIMARY KEY (image, position),
	FOREIGN KEY(image) REFERENCES image (uuid) ON DELETE CASCADE,
	FOREIGN KEY(layer) REFERENCES layer (uuid) ON DELETE RESTRICT
);
INSERT INTO "image_layer" VALUES('e4b06ce6-0741-47a8-bce4-2c8218072e8c',0,'35bf992d-c9e9-4616-a12e-7696a6cecc1b');
CREATE TABLE layer (
	uuid VARCHAR(36) NOT NULL,
	digest VARCHAR(80) NOT NULL,
	size BIGINT,
	PRIMARY KEY (uuid),
	FOREIGN KEY(uuid) REFERENCES object (uuid) ON DELETE CASCADE,
	UNIQUE (digest)
);
INSERT INTO "layer" VALUES('35bf992d-c9e9-4616-a12e-7696a6cecc1b','sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',NULL);
CREATE TABLE layer_location (
	layer VARCHAR(36) NOT NULL,
	host VARCHAR(36) NOT NULL,
	PRIMARY KEY (layer, host),
	FOREIGN KEY(layer) REFERENCES layer (uuid) ON DELETE CASCADE,
	FOREIGN KEY(host) REFERENCES host (uuid) ON DELETE CASCADE
);
INSERT INTO "layer_location" VALUES('35bf992d-c9e9-4616-a12e-7696a6cecc1b','78e51061-7311-48a3-82ce-6f447ed4d57b');
INSERT INTO "layer_location" VALUES('35bf992d-c9e9-4616-a12e-7696a6cecc1b','b2221a58-008a-45a6-8464-7159c324c985');
CREATE TABLE object (
	uuid VARCHAR(36) NOT NULL,
	kind VARCHAR(16) NOT NULL,
	PRIMARY KEY (uuid)
);
INSERT INTO "object" VALUES('cd613e30-d8f1-4adf-91b7-584a2265b1f5','host');
INSERT INTO "object" VALUES('1e2feb89-414c-443c-9027-c4d1c386bbc4','site');
INSERT INTO "object" VALUES('78e51061-7311-48a3-82ce-6f447ed4d57b','host');
INSERT INTO "object" VALUES('35bf992d-c9e9-4616-a12e-7696a6cecc1b','layer');
INSERT INTO "object" VALUES('e4b06ce6-0741-47a8-bce4-2c8218072e8c','image');
INSERT INTO "object" VALUES('9b810e76-6ec9-4286-a3ca-828dd5f4b3b2','site');
INSERT INTO "object" VALUES('b2221a58-008a-45a6-8464-7159c324c985','host');
INSERT INTO "object" VALUES('cd447e35-b8b6-48fe-842e-3d437204e52d','host');
INSERT INTO "object" VALUES('1a2b8f1f-f1fd-42a2-9755-d4c13a902931','host');
INSERT INTO "object" VALUES('05b6e6e3-07d4-4edc-9143-1193e6c3f339','host');
CREATE TABLE orders (
	uuid VARCHAR(36) NOT NULL,
	owner VARCHAR(64) NOT NULL,
	spec JSON NOT NULL,
	generation INTEGER NOT NULL,
	created VARCHAR(20) NOT NULL,
	updated VARCHAR(20) NOT NULL,
	PRIMARY KEY (uuid),
	FOREIGN KEY(uuid) REFERENCES host (uuid) ON DELETE CASCADE
);
INSERT INTO "orders" VALUES('cd613e30-d8f1-4adf-91b7-584a2265b1f5','alice','{"owner": "alice", "name": "web1", "image": "tiny", "vcpus": 1, "memory": 536870912, "packages": [], "users": [], "network": "virtuoso", "display": "vnc", "performance": {}, "goal": "balance", "tags": [], "disk": null}',1,'2026-11-01T12:00:00Z','2026-11-01T12:00:00Z');
INSERT INTO "orders" VALUES('1a2b8f1f-f1fd-42a2-9755-d4c13a902931','alice','{"owner": "alice", "name": "web2", "image": "debian-12", "memory": 1073741824, "network": "lab", "vcpus": 1, "packages": [], "users": [], "display": "vnc", "performance": {}, "goal": "balance", "tags": [], "disk": null}',1,'2026-11-01T12:00:00Z','2026-11-01T12:00:00Z');
INSERT INTO "orders" VALUES('05b6e6e3-07d4-4edc-9143-1193e6c3f339','alice','{"owner": "alice", "name": "web3", "image": "tiny", "vcpus": 2, "memory": 536870912, "packages": [], "users": [], "network": "virtuoso", "display": "vnc", "performance": {}, "goal": "balance", "tags": [], "disk": null}',1,'2026-11-01T12:00:00Z','2026-11-01T12:00:00Z');
CREATE TABLE schema_version (
	version INTEGER NOT NULL
);
INSERT INTO "schema_version" VALUES(1);
CREATE TABLE site (
	uuid VARCHAR(36) NOT NULL,
	name VARCHAR(64) NOT NULL,
	PRIMARY KEY (uuid),
	FOREIGN KEY(uuid) REFERENCES object (uuid) ON DELETE CASCADE,
	UNIQUE (name)
);
INSERT INTO "site" VALUES('1e2feb89-414c-443c-9027-c4d1c386bbc4','north');
INSERT INTO "site" VALUES('9b810e76-6ec9-4286-a3ca-828dd5f4b3b2','south');
CREATE TABLE virtualization (
	"virtual" VARCHAR(36) NOT NULL,
	constituent VARCHAR(36) NOT NULL,
	role VARCHAR(16) NOT NULL,
	PRIMARY KEY ("virtual", constituent, role),
	FOREIGN KEY("virtual") REFERENCES object (uuid) ON DELETE CASCADE,
	FOREIGN KEY(constituent) REFERENCES object (uuid) ON DELETE RESTRICT
);
INSERT INTO "virtualization" VALUES('cd613e30-d8f1-4adf-91b7-584a2265b1f5','78e51061-7311-48a3-82ce-6f447ed4d57b','provider');
INSERT INTO "virtualization" VALUES('cd613e30-d8f1-4adf-91b7-584a2265b1f5','e4b06ce6-0741-47a8-bce4-2c8218072e8c','image');
INSERT INTO "virtualization" VALUES('1a2b8f1f-f1fd-42a2-9755-d4c13a902931','b2221a58-008a-45a6-8464-7159c324c985','provider');
CREATE INDEX virtualization_of ON virtualization (constituent, role);
CREATE INDEX ix_image_name ON image (name);
CREATE INDEX ix_image_digest ON image (digest);
CREATE INDEX ix_event_object ON event (object);
CREATE INDEX ix_host_kind ON host (kind);
CREATE INDEX ix_orders_owner ON orders (owner);
COMMIT;

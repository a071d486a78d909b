BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE api_tokens (
	sha256 VARCHAR(64) NOT NULL, 
	name VARCHAR(100) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	created_ms BIGINT NOT NULL, 
	expires_ms BIGINT NOT NULL, 
	PRIMARY KEY (sha256)
);
INSERT INTO "api_tokens" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','ci','publisher',1750000000000,1790000000000);
CREATE TABLE assignments (
	device_id VARCHAR(63) NOT NULL, 
	version BIGINT NOT NULL, 
	signed_ms BIGINT NOT NULL, 
	expires_ms BIGINT NOT NULL, 
	entries TEXT NOT NULL, 
	document BLOB NOT NULL, 
	PRIMARY KEY (device_id), 
	FOREIGN KEY(device_id) REFERENCES devices (id)
);
INSERT INTO "assignments" VALUES('cam-01',7,1750000000000,1760000000000,'[{"family":"fashion_mnist","version":"1.0.0","path":"models/fashion_mnist/1.0.0/manifest.json","length":1234,"sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}]',X'7B7D');
CREATE TABLE burnt_claims (
	jti VARCHAR(64) NOT NULL, 
	device_id VARCHAR(63) NOT NULL, 
	public_key_sha256 VARCHAR(64) NOT NULL, 
	burnt_ms BIGINT NOT NULL, 
	PRIMARY KEY (jti), 
	FOREIGN KEY(device_id) REFERENCES devices (id)
);
INSERT INTO "burnt_claims" VALUES('00000000000000000000000000000000','cam-01','0000000000000000000000000000000000000000000000000000000000000000',1750000000000);
INSERT INTO "burnt_claims" VALUES('11111111111111111111111111111111','cam-02','1111111111111111111111111111111111111111111111111111111111111111',1750000000000);
CREATE TABLE device_events (
	id INTEGER NOT NULL, 
	device_id VARCHAR(63) NOT NULL, 
	stream VARCHAR(40) NOT NULL, 
	sequence BIGINT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	received_ms BIGINT NOT NULL, 
	kind VARCHAR(40) NOT NULL, 
	detail TEXT NOT NULL, 
	family VARCHAR(64), 
	version VARCHAR(64), 
	state VARCHAR(20), 
	PRIMARY KEY (id), 
	FOREIGN KEY(device_id) REFERENCES devices (id), 
	CONSTRAINT uq_event UNIQUE (device_id, stream, sequence)
);
INSERT INTO "device_events" VALUES(1,'cam-01','e1',1,1750000000000,1750000000100,'update','committed','fashion_mnist','1.0.0','committed');
CREATE TABLE devices (
	id VARCHAR(63) NOT NULL, 
	public_key_pem TEXT NOT NULL, 
	public_key_sha256 VARCHAR(64) NOT NULL, 
	certificate_pem TEXT NOT NULL, 
	certificate_serial VARCHAR(40) NOT NULL, 
	certificate_expires_ms BIGINT NOT NULL, 
	enrolled_ms BIGINT NOT NULL, 
	decommissioned_ms BIGINT, 
	online BOOLEAN NOT NULL, 
	last_seen_ms BIGINT, 
	reported TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "devices" VALUES('cam-01','-----BEGIN PUBLIC KEY-----','0000000000000000000000000000000000000000000000000000000000000000','-----BEGIN CERTIFICATE-----','0f',1760000000000,1750000000000,NULL,1,1750000100000,NULL);
INSERT INTO "devices" VALUES('cam-02','-----BEGIN PUBLIC KEY-----','1111111111111111111111111111111111111111111111111111111111111111','-----BEGIN CERTIFICATE-----','1f',1760000000000,1750000000000,1750000900000,0,1750000100000,NULL);
CREATE TABLE releases (
	family VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	manifest_path VARCHAR(255) NOT NULL, 
	manifest_length BIGINT NOT NULL, 
	manifest_sha256 VARCHAR(64) NOT NULL, 
	security_counter BIGINT NOT NULL, 
	description TEXT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	published_ms BIGINT NOT NULL, 
	PRIMARY KEY (family, version)
);
INSERT INTO "releases" VALUES('fashion_mnist','1.0.0','models/fashion_mnist/1.0.0/manifest.json',1234,'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',1,'first',5000,1750000000000);
CREATE TABLE streams (
	device_id VARCHAR(63) NOT NULL, 
	stream VARCHAR(40) NOT NULL, 
	acked BIGINT NOT NULL, 
	ahead TEXT NOT NULL, 
	heard_ms BIGINT NOT NULL, 
	stuck_since_ms BIGINT, 
	PRIMARY KEY (device_id, stream), 
	FOREIGN KEY(device_id) REFERENCES devices (id)
);
INSERT INTO "streams" VALUES('cam-01','s1',2,'[]',1750000100000,NULL);
CREATE TABLE telemetry_models (
	id INTEGER NOT NULL, 
	window_id INTEGER NOT NULL, 
	device_id VARCHAR(63) NOT NULL, 
	start_ms BIGINT NOT NULL, 
	family VARCHAR(64) NOT NULL, 
	version VARCHAR(64) NOT NULL, 
	variant VARCHAR(200) NOT NULL, 
	requests BIGINT NOT NULL, 
	counts TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(window_id) REFERENCES telemetry_windows (id)
);
INSERT INTO "telemetry_models" VALUES(1,1,'cam-01',1750000060000,'fashion_mnist','1.0.0','fp32',10,'{}');
INSERT INTO "telemetry_models" VALUES(2,2,'cam-01',1750000120000,'fashion_mnist','1.0.0','fp32',10,'{}');
CREATE TABLE telemetry_windows (
	id INTEGER NOT NULL, 
	device_id VARCHAR(63) NOT NULL, 
	stream VARCHAR(40) NOT NULL, 
	sequence BIGINT NOT NULL, 
	covers_from BIGINT NOT NULL, 
	start_ms BIGINT NOT NULL, 
	end_ms BIGINT NOT NULL, 
	received_ms BIGINT NOT NULL, 
	system TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(device_id) REFERENCES devices (id), 
	CONSTRAINT uq_window UNIQUE (device_id, stream, sequence)
);
INSERT INTO "telemetry_windows" VALUES(1,'cam-01','s1',1,1,1750000060000,1750000120000,1750000100000,'{}');
INSERT INTO "telemetry_windows" VALUES(2,'cam-01','s1',2,2,1750000120000,1750000180000,1750000100000,'{}');
CREATE INDEX ix_event_device ON device_events (device_id, id);
CREATE INDEX ix_window_device ON telemetry_windows (device_id, id);
CREATE INDEX ix_window_start ON telemetry_windows (start_ms);
CREATE INDEX ix_model_device ON telemetry_models (device_id, start_ms);
CREATE INDEX ix_model_family ON telemetry_models (family, start_ms);
CREATE INDEX ix_model_start ON telemetry_models (start_ms);
CREATE INDEX ix_model_window ON telemetry_models (window_id);
COMMIT;

--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: api_tokens; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.api_tokens (
    sha256 character varying(64) NOT NULL,
    name character varying(100) NOT NULL,
    role character varying(16) NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL
);


--
-- Name: assignments; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.assignments (
    device_id character varying(63) NOT NULL,
    version bigint NOT NULL,
    signed_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    entries text NOT NULL,
    document bytea NOT NULL
);


--
-- Name: burnt_claims; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.burnt_claims (
    jti character varying(64) NOT NULL,
    device_id character varying(63) NOT NULL,
    public_key_sha256 character varying(64) NOT NULL,
    burnt_ms bigint NOT NULL
);


--
-- Name: device_events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.device_events (
    id bigint NOT NULL,
    device_id character varying(63) NOT NULL,
    stream character varying(40) NOT NULL,
    sequence bigint NOT NULL,
    at_ms bigint NOT NULL,
    received_ms bigint NOT NULL,
    kind character varying(40) NOT NULL,
    detail text NOT NULL,
    family character varying(64),
    version character varying(64),
    state character varying(20)
);


--
-- Name: device_events_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.device_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: device_events_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.device_events_id_seq OWNED BY public.device_events.id;


--
-- Name: devices; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.devices (
    id character varying(63) NOT NULL,
    public_key_pem text NOT NULL,
    public_key_sha256 character varying(64) NOT NULL,
    certificate_pem text NOT NULL,
    certificate_serial character varying(40) NOT NULL,
    certificate_expires_ms bigint NOT NULL,
    enrolled_ms bigint NOT NULL,
    decommissioned_ms bigint,
    online boolean NOT NULL,
    last_seen_ms bigint,
    reported text
);


--
-- Name: releases; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.releases (
    family character varying(64) NOT NULL,
    version character varying(64) NOT NULL,
    manifest_path character varying(255) NOT NULL,
    manifest_length bigint NOT NULL,
    manifest_sha256 character varying(64) NOT NULL,
    security_counter bigint NOT NULL,
    description text NOT NULL,
    size_bytes bigint NOT NULL,
    published_ms bigint NOT NULL
);


--
-- Name: streams; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.streams (
    device_id character varying(63) NOT NULL,
    stream character varying(40) NOT NULL,
    acked bigint NOT NULL,
    ahead text NOT NULL,
    heard_ms bigint NOT NULL,
    stuck_since_ms bigint
);


--
-- Name: telemetry_models; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.telemetry_models (
    id bigint NOT NULL,
    window_id bigint NOT NULL,
    device_id character varying(63) NOT NULL,
    start_ms bigint NOT NULL,
    family character varying(64) NOT NULL,
    version character varying(64) NOT NULL,
    variant character varying(200) NOT NULL,
    requests bigint NOT NULL,
    counts text NOT NULL
);


--
-- Name: telemetry_models_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.telemetry_models_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: telemetry_models_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.telemetry_models_id_seq OWNED BY public.telemetry_models.id;


--
-- Name: telemetry_windows; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.telemetry_windows (
    id bigint NOT NULL,
    device_id character varying(63) NOT NULL,
    stream character varying(40) NOT NULL,
    sequence bigint NOT NULL,
    covers_from bigint NOT NULL,
    start_ms bigint NOT NULL,
    end_ms bigint NOT NULL,
    received_ms bigint NOT NULL,
    system text NOT NULL
);


--
-- Name: telemetry_windows_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.telemetry_windows_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: telemetry_windows_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.telemetry_windows_id_seq OWNED BY public.telemetry_windows.id;


--
-- Name: device_events id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.device_events ALTER COLUMN id SET DEFAULT nextval('public.device_events_id_seq'::regclass);


--
-- Name: telemetry_models id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_models ALTER COLUMN id SET DEFAULT nextval('public.telemetry_models_id_seq'::regclass);


--
-- Name: telemetry_windows id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_windows ALTER COLUMN id SET DEFAULT nextval('public.telemetry_windows_id_seq'::regclass);


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.alembic_version VALUES ('0001');


--
-- Data for Name: api_tokens; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.api_tokens VALUES ('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'ci', 'publisher', 1750000000000, 1790000000000);


--
-- Data for Name: assignments; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.assignments VALUES ('cam-01', 7, 1750000000000, 1760000000000, '[{"family":"fashion_mnist","version":"1.0.0","path":"models/fashion_mnist/1.0.0/manifest.json","length":1234,"sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}]', '\x7b7d');


--
-- Data for Name: burnt_claims; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.burnt_claims VALUES ('00000000000000000000000000000000', 'cam-01', '0000000000000000000000000000000000000000000000000000000000000000', 1750000000000);
INSERT INTO public.burnt_claims VALUES ('11111111111111111111111111111111', 'cam-02', '1111111111111111111111111111111111111111111111111111111111111111', 1750000000000);


--
-- Data for Name: device_events; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.device_events VALUES (1, 'cam-01', 'e1', 1, 1750000000000, 1750000000100, 'update', 'committed', 'fashion_mnist', '1.0.0', 'committed');


--
-- Data for Name: devices; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.devices VALUES ('cam-01', '-----BEGIN PUBLIC KEY-----', '0000000000000000000000000000000000000000000000000000000000000000', '-----BEGIN CERTIFICATE-----', '0f', 1760000000000, 1750000000000, NULL, true, 1750000100000, NULL);
INSERT INTO public.devices VALUES ('cam-02', '-----BEGIN PUBLIC KEY-----', '1111111111111111111111111111111111111111111111111111111111111111', '-----BEGIN CERTIFICATE-----', '1f', 1760000000000, 1750000000000, 1750000900000, false, 1750000100000, NULL);


--
-- Data for Name: releases; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.releases VALUES ('fashion_mnist', '1.0.0', 'models/fashion_mnist/1.0.0/manifest.json', 1234, 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 1, 'first', 5000, 1750000000000);


--
-- Data for Name: streams; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.streams VALUES ('cam-01', 's1', 2, '[]', 1750000100000, NULL);


--
-- Data for Name: telemetry_models; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.telemetry_models VALUES (1, 1, 'cam-01', 1750000060000, 'fashion_mnist', '1.0.0', 'fp32', 10, '{}');
INSERT INTO public.telemetry_models VALUES (2, 2, 'cam-01', 1750000120000, 'fashion_mnist', '1.0.0', 'fp32', 10, '{}');


--
-- Data for Name: telemetry_windows; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.telemetry_windows VALUES (1, 'cam-01', 's1', 1, 1, 1750000060000, 1750000120000, 1750000100000, '{}');
INSERT INTO public.telemetry_windows VALUES (2, 'cam-01', 's1', 2, 2, 1750000120000, 1750000180000, 1750000100000, '{}');


--
-- Name: device_events_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.device_events_id_seq', 1, true);


--
-- Name: telemetry_models_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.telemetry_models_id_seq', 2, true);


--
-- Name: telemetry_windows_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.telemetry_windows_id_seq', 2, true);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: api_tokens api_tokens_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (sha256);


--
-- Name: assignments assignments_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_pkey PRIMARY KEY (device_id);


--
-- Name: burnt_claims burnt_claims_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.burnt_claims
    ADD CONSTRAINT burnt_claims_pkey PRIMARY KEY (jti);


--
-- Name: device_events device_events_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.device_events
    ADD CONSTRAINT device_events_pkey PRIMARY KEY (id);


--
-- Name: devices devices_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_pkey PRIMARY KEY (id);


--
-- Name: releases releases_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.releases
    ADD CONSTRAINT releases_pkey PRIMARY KEY (family, version);


--
-- Name: streams streams_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.streams
    ADD CONSTRAINT streams_pkey PRIMARY KEY (device_id, stream);


--
-- Name: telemetry_models telemetry_models_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_models
    ADD CONSTRAINT telemetry_models_pkey PRIMARY KEY (id);


--
-- Name: telemetry_windows telemetry_windows_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_windows
    ADD CONSTRAINT telemetry_windows_pkey PRIMARY KEY (id);


--
-- Name: device_events uq_event; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.device_events
    ADD CONSTRAINT uq_event UNIQUE (device_id, stream, sequence);


--
-- Name: telemetry_windows uq_window; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_windows
    ADD CONSTRAINT uq_window UNIQUE (device_id, stream, sequence);


--
-- Name: ix_event_device; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_event_device ON public.device_events USING btree (device_id, id);


--
-- Name: ix_model_device; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_model_device ON public.telemetry_models USING btree (device_id, start_ms);


--
-- Name: ix_model_family; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_model_family ON public.telemetry_models USING btree (family, start_ms);


--
-- Name: ix_model_start; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_model_start ON public.telemetry_models USING btree (start_ms);


--
-- Name: ix_model_window; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_model_window ON public.telemetry_models USING btree (window_id);


--
-- Name: ix_window_device; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_window_device ON public.telemetry_windows USING btree (device_id, id);


--
-- Name: ix_window_start; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_window_start ON public.telemetry_windows USING btree (start_ms);


--
-- Name: assignments assignments_device_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.assignments
    ADD CONSTRAINT assignments_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id);


--
-- Name: burnt_claims burnt_claims_device_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.burnt_claims
    ADD CONSTRAINT burnt_claims_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id);


--
-- Name: device_events device_events_device_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.device_events
    ADD CONSTRAINT device_events_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id);


--
-- Name: streams streams_device_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.streams
    ADD CONSTRAINT streams_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id);


--
-- Name: telemetry_models telemetry_models_window_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_models
    ADD CONSTRAINT telemetry_models_window_id_fkey FOREIGN KEY (window_id) REFERENCES public.telemetry_windows(id);


--
-- Name: telemetry_windows telemetry_windows_device_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.telemetry_windows
    ADD CONSTRAINT telemetry_windows_device_id_fkey FOREIGN KEY (device_id) REFERENCES public.devices(id);


--
-- PostgreSQL database dump complete
--



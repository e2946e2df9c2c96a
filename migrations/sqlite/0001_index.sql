-- The index of what is stored. It follows from the sidecars and can be dropped at any time.

create table meta (
    name text primary key not null,
    value text not null
) without rowid;

create table modules (
    id integer primary key,
    path text not null unique
);

create table versions (
    id integer primary key,
    module_id integer not null references modules (id),
    version text not null,
    unique (module_id, version)
);

create table artifacts (
    version_id integer not null references versions (id),
    kind text not null check (kind in ('info', 'mod', 'zip')),
    size integer not null,
    sha256 text not null,
    h1 text,
    -- 'verified', 'exempt', 'uncovered' or 'unverified'
    state text not null,
    -- the database that verified it, the pattern that exempted it
    state_detail text,
    source text not null,
    -- milliseconds since 1970, utc
    first_seen integer not null,
    -- the rebuild that last saw it; see the program
    pass integer not null,
    primary key (version_id, kind)
) without rowid;

-- Counted as rows come and go, since counting three million rows takes a second.
create table totals (
    id integer primary key check (id = 1),
    modules integer not null default 0,
    versions integer not null default 0,
    artifacts integer not null default 0,
    bytes integer not null default 0
);

insert into totals (id) values (1);

create trigger modules_added after insert on modules begin
    update totals set modules = modules + 1;
end;

create trigger modules_removed after delete on modules begin
    update totals set modules = modules - 1;
end;

create trigger versions_added after insert on versions begin
    update totals set versions = versions + 1;
end;

create trigger versions_removed after delete on versions begin
    update totals set versions = versions - 1;
end;

create trigger artifacts_added after insert on artifacts begin
    update totals set artifacts = artifacts + 1, bytes = bytes + new.size;
end;

create trigger artifacts_changed after update of size on artifacts begin
    update totals set bytes = bytes + new.size - old.size;
end;

create trigger artifacts_removed after delete on artifacts begin
    update totals set artifacts = artifacts - 1, bytes = bytes - old.size;
end;

-- What waits for the checksum database is few of many, and asked for often.

create index artifacts_unverified on artifacts (version_id) where state = 'unverified';

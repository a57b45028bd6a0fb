-- The call that the request places, if it places one: by it the answer is found again after a crash.
ALTER TABLE requests ADD COLUMN call_id TEXT;
CREATE INDEX requests_by_application ON requests (application, created_at);

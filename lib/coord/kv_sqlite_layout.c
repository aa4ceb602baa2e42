/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The tables of the state file, and the step from the layout before, which had a table for each
 * kind of record.
 */
#include <stdio.h>
#include <string.h>

#include "coord/kv_sqlite.h"

#define LAYOUT     2
#define OLD_LAYOUT 1

static const char tables[] =
    "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL) STRICT;"
    "INSERT INTO state VALUES (1, 1);"
    "CREATE TABLE kv (key TEXT PRIMARY KEY, value TEXT NOT NULL, create_revision INTEGER NOT NULL,"
    " mod_revision INTEGER NOT NULL, lease INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX kv_lease ON kv (lease) WHERE lease <> 0;"
    "CREATE TABLE changes (revision INTEGER NOT NULL, key TEXT NOT NULL,"
    " PRIMARY KEY (revision, key)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL,"
    " deadline_ms INTEGER NOT NULL, boot TEXT NOT NULL, owner TEXT NOT NULL) STRICT;";

/* Nobody who made these records lives any more. */
static const char from_old[] =
    "INSERT INTO kv SELECT '" XV_KV_LOCAL_PREFIX "job/' || id, json_object('type', type,"
    " 'name', name, 'state', CASE state WHEN 'running' THEN 'interrupted' ELSE state END,"
    " 'owner', owner, 'pool', pool_uuid, 'repo', repo_id, 'started', started_ms,"
    " 'ended', ended_ms), r, r, 0"
    " FROM (SELECT *, 1 + row_number() OVER (ORDER BY started_ms, rowid) AS r FROM jobs);"
    "INSERT INTO kv SELECT '" XV_KV_LOCAL_PREFIX "jobtext/' || id || '/spec/000000', spec, 1, 1, 0"
    " FROM jobs;"
    "INSERT INTO kv SELECT '" XV_KV_LOCAL_PREFIX "jobtext/' || id || '/report/000000', report,"
    " 1, 1, 0 FROM jobs WHERE report IS NOT NULL;"
    "INSERT INTO kv SELECT '" XV_KV_LOCAL_PREFIX "intent/' || format('%016x', id),"
    " json_object('job', job_id, 'owner', owner, 'pool', pool_uuid, 'kind', kind, 'tag', tag,"
    " 'vm', vm_uuid, 'abandoned', json('true')), id + 1, id + 1, 0 FROM intents;"
    "INSERT INTO kv SELECT '" XV_KV_LOCAL_PREFIX "outcome/' || pool_uuid || '/' || vm_uuid,"
    " json_object('failed', json(CASE succeeded WHEN 0 THEN 'true' ELSE 'false' END),"
    " 'ended', ended_ms), 1, 1, 0 FROM outcomes;"
    "UPDATE state SET revision = max(1, (SELECT coalesce(max(mod_revision), 1) FROM kv));"
    "DROP TABLE jobs; DROP TABLE intents; DROP TABLE outcomes;";

static const char *place(const struct xv_kv_sqlite *self)
{
    return self->sqlite.path == NULL ? "in memory" : self->sqlite.path;
}

static int make(struct xv_kv_sqlite *self, xvsa_error **error)
{
    int64_t count = 0;
    int rc = xv_sqlite_number(&self->sqlite, "read its tables", &count, error,
                              "SELECT count(*) FROM sqlite_schema", "");
    if (rc == 0 && count > 0)
        return xv_fail(error, XVSA_ERR_FORMAT, XV_KV_COMPONENT,
                       "state file %s: a SQLite file of another program", place(self));
    return rc == 0 ? xv_sqlite_execute(&self->sqlite, "set it up", tables, error) : rc;
}

static int upgrade(struct xv_kv_sqlite *self, xvsa_error **error)
{
    if (xv_owner_sweep(&self->owner))
        return xv_fail(error, XVSA_ERR_BUSY, XV_KV_COMPONENT,
                       "state file %s: a process of an older version works with it; end that first",
                       place(self));
    int rc = xv_sqlite_execute(&self->sqlite, "bring it up to date", tables, error);
    if (rc == 0)
        rc = xv_sqlite_execute(&self->sqlite, "bring it up to date", from_old, error);
    return rc;
}

static int bring_up(struct xv_kv_sqlite *self, xvsa_error **error)
{
    int64_t version = 0;
    char pragma[48];
    int rc = xv_sqlite_number(&self->sqlite, "read its version", &version, error,
                              "PRAGMA user_version", "");
    if (rc != 0 || version == LAYOUT)
        return rc;
    if (version == 0)
        rc = make(self, error);
    else if (version == OLD_LAYOUT)
        rc = upgrade(self, error);
    else
        rc = xv_fail(error, XVSA_ERR_FORMAT, XV_KV_COMPONENT,
                     "state file %s: written by a newer version (%lld, this one knows %d)",
                     place(self), (long long)version, LAYOUT);
    snprintf(pragma, sizeof pragma, "PRAGMA user_version = %d", LAYOUT);
    return rc == 0 ? xv_sqlite_execute(&self->sqlite, "bring it up to date", pragma, error) : rc;
}

/* The change to write-ahead logging does not wait for others by itself. */
static int set_journal(struct xv_kv_sqlite *self, xvsa_error **error)
{
    for (int i = 0;; i++) {
        xvsa_error *busy = NULL;
        int rc = xv_sqlite_execute(&self->sqlite, "set it up", "PRAGMA journal_mode = WAL", &busy);
        if (rc != XVSA_ERR_BUSY || i == 100) {
            if (rc != 0 && error != NULL)
                *error = busy;
            else
                xv_error_clear(&busy);
            return rc;
        }
        xv_error_clear(&busy);
        rc = xv_call_sleep(self->sqlite.call, 20, XV_KV_COMPONENT, "opening the state file", error);
        if (rc != 0)
            return rc;
    }
}

int xv_kv_sqlite_layout(struct xv_kv_sqlite *self, xvsa_error **error)
{
    int rc = set_journal(self, error);
    /* An intent must survive a power failure that the pool's object survives. */
    if (rc == 0)
        rc = xv_kv_sqlite_sync(self, true, error);
    if (rc == 0)
        rc = xv_sqlite_execute(&self->sqlite, "set it up", "PRAGMA trusted_schema = OFF", error);
    if (rc == 0)
        rc = xv_sqlite_execute(&self->sqlite, "begin its update", "BEGIN IMMEDIATE", error);
    if (rc != 0)
        return rc;
    /* Inside one transaction, so that of several processes one does it and the others find it
     * done. */
    return xv_kv_sqlite_end(self, bring_up(self, error), error);
}

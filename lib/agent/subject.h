/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a task is about, and how the pool's objects made for it are marked.
 */
#ifndef XV_AGENT_SUBJECT_H
#define XV_AGENT_SUBJECT_H

#include "agent/record.h"

/* Subject of the only task of a verify job. */
#define XV_SUBJECT_REPOSITORY "repository"

/* Document "job" for one subject of a job; the caller frees it. NULL without memory. */
char *xv_subject_spec(const struct xv_queued_job *job, const char *subject);

/* "xvsa:<job>.<subject>:s<16 digits of the site>": of the job, not of a process. */
#define XV_SITE_TAG_MAX 128
void xv_tag_make(char ret[XV_SITE_TAG_MAX], const char *job_id, const char *subject,
                 const char *site_uuid);
/* Id of the job that a tag of this site belongs to; false for every other tag. */
bool xv_tag_job(const char *tag, const char *site_uuid, char ret[XV_SITE_ID_LENGTH + 1]);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/subject.h"

#include <stdio.h>
#include <string.h>

#define TAG_BEGIN   "xvsa:"
#define SITE_DIGITS 16

char *xv_subject_spec(const struct xv_queued_job *job, const char *subject)
{
    json_t *spec = json_deep_copy(job->spec);
    if (strcmp(job->type, "backup") == 0) {
        json_object_set_new(json_object_get(spec, "selection"), "vms",
                            json_pack("[{s:s}]", "uuid", subject));
        json_t *excluded = json_object_get(json_object_get(spec, "selection"), "exclude");
        if (excluded != NULL)
            json_object_del(excluded, "vms");
    } else if (strcmp(job->type, "restore") == 0) {
        json_object_set_new(spec, "points", json_pack("[s]", subject));
    }
    char *text = spec == NULL ? NULL : json_dumps(spec, JSON_COMPACT);
    json_decref(spec);
    return text;
}

/* First digits of a uuid. */
static void site_digits(const char *site_uuid, char ret[SITE_DIGITS + 1])
{
    size_t length = 0;
    for (const char *c = site_uuid; *c != '\0' && length < SITE_DIGITS; c++) {
        if (*c != '-')
            ret[length++] = *c;
    }
    ret[length] = '\0';
}

void xv_tag_make(char ret[XV_SITE_TAG_MAX], const char *job_id, const char *subject,
                 const char *site_uuid)
{
    char site[SITE_DIGITS + 1];
    site_digits(site_uuid, site);
    snprintf(ret, XV_SITE_TAG_MAX, TAG_BEGIN "%s.%s:s%s", job_id, subject, site);
}

bool xv_tag_job(const char *tag, const char *site_uuid, char ret[XV_SITE_ID_LENGTH + 1])
{
    char site[SITE_DIGITS + 1];
    site_digits(site_uuid, site);
    size_t begin = strlen(TAG_BEGIN);
    if (strncmp(tag, TAG_BEGIN, begin) != 0 ||
        strspn(tag + begin, "0123456789abcdef") != XV_SITE_ID_LENGTH ||
        tag[begin + XV_SITE_ID_LENGTH] != '.')
        return false;
    const char *end = strrchr(tag, ':');
    if (end == NULL || end[1] != 's' || strcmp(end + 2, site) != 0)
        return false;
    snprintf(ret, XV_SITE_ID_LENGTH + 1, "%.*s", XV_SITE_ID_LENGTH, tag + begin);
    return true;
}

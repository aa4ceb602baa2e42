/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "repo/fault.h"

#include <stdio.h>

int xv_fault(xvsa_error **error, const char *object, const char *format, ...)
{
    if (error == NULL)
        return XVSA_ERR_CORRUPT;
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    xv_fail(error, XVSA_ERR_CORRUPT, "repo", "object '%s' is damaged: %s", object,
            length < 0 ? "" : text);
    xv_error_set_detail(*error, "object", object);
    return XVSA_ERR_CORRUPT;
}

int xv_fault_object(xvsa_error **error, int rc, const char *object)
{
    xv_error_wrap(error, rc, "repo", "object '%s': %s", object,
                  error == NULL ? "" : xvsa_error_message(*error));
    if (error != NULL)
        xv_error_set_detail(*error, "object", object);
    return rc;
}

int xv_fault_disk(xvsa_error **error, int rc, const char *point, const char *disk)
{
    if (error == NULL)
        return rc;
    xv_error_wrap(error, rc, "repo", "point %s%s%s: %s", point, disk == NULL ? "" : ", disk ",
                  disk == NULL ? "" : disk, xvsa_error_message(*error));
    xv_error_set_detail(*error, "point", point);
    xv_error_set_detail(*error, "disk", disk);
    return rc;
}

void xv_fault_drop(xvsa_error **error)
{
    if (error != NULL)
        xv_error_clear(error);
}

bool xv_fault_is_damage(int rc)
{
    return rc == XVSA_ERR_CORRUPT || rc == XVSA_ERR_NOT_FOUND || rc == XVSA_ERR_FORMAT ||
           rc == XVSA_ERR_LIMIT;
}

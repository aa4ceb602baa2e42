/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/env.h"

#include <stdio.h>

#define LINE_MAX_BYTES 2048

void xv_log(const struct xv_env *env, int32_t level, const char *component, const char *format, ...)
{
    if (env == NULL || env->log == NULL || level > env->log_level)
        return;
    char line[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length >= 0)
        env->log(env->log_user, level, component, line);
}

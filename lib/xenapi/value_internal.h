/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the codecs need of values beyond the common interface.
 */
#ifndef XV_XENAPI_VALUE_INTERNAL_H
#define XV_XENAPI_VALUE_INTERNAL_H

#include "xenapi/value.h"

struct xv_value *xv_value_new_nil(void);

/* Takes over key and item. Does not look whether key is there already. */
bool xv_value_append_member(struct xv_value *record, char *key, struct xv_value *item);

/* Always with a point, "inf", "-inf" or "nan"; size at least 32. */
void xv_value_format_double(double number, char *text, size_t size);
bool xv_value_parse_double(const char *text, double *ret);

#endif

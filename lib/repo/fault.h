/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Errors that name the object, the point and the disk concerned.
 */
#ifndef XV_REPO_FAULT_H
#define XV_REPO_FAULT_H

#include "base/error.h"

/* Fails with CORRUPT; the text says what is wrong with the object. */
int xv_fault(xvsa_error **error, const char *object, const char *format, ...) XV_PRINTF(3, 4);

/* Puts "object '...'" with that detail above *error. Returns rc. */
int xv_fault_object(xvsa_error **error, int rc, const char *object);

/* Puts the point and the disk above *error; disk may be NULL. Returns rc. */
int xv_fault_disk(xvsa_error **error, int rc, const char *point, const char *disk);

/* Frees *error to make room for another; error may be NULL. */
void xv_fault_drop(xvsa_error **error);

/* Does this code mean that what is stored is wrong (and not that it could not be reached)? */
bool xv_fault_is_damage(int rc);

#endif

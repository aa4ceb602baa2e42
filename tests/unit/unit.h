/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Main function and checks that every unit test shares. A test file defines `static void fill(Suite *)`
 * and ends with UNIT_MAIN("name").
 */
#ifndef XV_TESTS_UNIT_H
#define XV_TESTS_UNIT_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"

/* fork() that fails the test when there is no child. The check is the parent's alone: parent and
 * child share the file that Check's checks write to, and its position. In an unchecked fixture Check
 * reads that file while the child still runs, and would find what the child writes in the middle of
 * it ("Bad message type"): a child that a fixture leaves behind must not check anything. */
static inline pid_t unit_fork(void)
{
    pid_t child = fork();
    if (child < 0)
        ck_abort_msg("fork failed");
    return child;
}

/* Fails the test with the error's message when rc is not 0. */
#define ck_ok(rc, error)                                                                           \
    do {                                                                                           \
        int ck_rc = (rc);                                                                          \
        ck_assert_msg(ck_rc == 0, "%s: %s", xvsa_code_name(ck_rc), xvsa_error_message(error));     \
    } while (0)

/* Checks that a call failed with code, and clears the error. */
#define ck_fails(rc, code, error)                                                                  \
    do {                                                                                           \
        int ck_rc = (rc);                                                                          \
        ck_assert_msg(ck_rc == (code), "got %s (%s)", xvsa_code_name(ck_rc),                       \
                      xvsa_error_message(error));                                                  \
        ck_assert_ptr_nonnull(error);                                                              \
        ck_assert_int_eq(xvsa_error_code(error), (code));                                          \
        xv_error_clear(&(error));                                                                  \
    } while (0)

#define UNIT_MAIN(name)                                                                            \
    int main(void)                                                                                 \
    {                                                                                              \
        /* Check's own four seconds are little on a busy machine. */                               \
        setenv("CK_DEFAULT_TIMEOUT", "60", 0);                                                     \
        Suite *suite = suite_create(name);                                                         \
        fill(suite);                                                                               \
        SRunner *runner = srunner_create(suite);                                                   \
        srunner_run_all(runner, CK_NORMAL);                                                        \
        int failed = srunner_ntests_failed(runner);                                                \
        srunner_free(runner);                                                                      \
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;                                          \
    }

#endif

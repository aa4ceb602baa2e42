/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the commands of format-repo share.
 */
#ifndef XV_TESTS_REPO_COMMANDS_H
#define XV_TESTS_REPO_COMMANDS_H

#include "repo/repo.h"

#define DISKS 8

struct slot {
    struct xv_session *session;
    struct xv_point *base;
    struct xv_packer *packer;
    struct xv_disk_writer *writers[DISKS]; /* they must outlive the commit */
    unsigned disks;
};

extern struct xv_repo *repo;

/* Ends the program: the test is wrong. */
void die(const char *what);
/* Answers a failed command, on one line; returns rc. */
int refuse(int rc, xvsa_error *error);
int answer(const char *value);
uint64_t number(const char *word);
struct slot *slot_of(const char *word);
/* The disk that the session works on. */
struct xv_disk_writer *writer_of(const struct slot *slot);
void clear_slot(struct slot *slot);
int begin(char **words, const char *work, uint32_t kind);

/* Commands of works (repo_work.c). */
int do_work(char **words);
int do_map(char **words);
int do_adopt(char **words);
int do_park(char **words);
int do_done(char **words);
int do_read_map(char **words);
int do_works(char **words);

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A site as its clients see it: jobs are submitted, controlled and watched through the coordination
 * store. Reference counted. Thread-safe.
 */
#ifndef XV_AGENT_SITE_H
#define XV_AGENT_SITE_H

#include "coord/kv.h"
#include "job/engine.h"

struct xv_site;

int xv_site_open(struct xv_engine *engine, const xvsa_site_options *options,
                 const struct xv_call *call, struct xv_site **ret,
                 xvsa_error **error) XV_MUST_CHECK;
struct xv_site *xv_site_ref(struct xv_site *site);
void xv_site_unref(struct xv_site *site);
/* STATE while agents are in it; waits for calls under way. */
int xv_site_close(struct xv_site *site, xvsa_error **error) XV_MUST_CHECK;

struct xv_engine *xv_site_engine(const struct xv_site *site);
struct xv_kv *xv_site_kv(const struct xv_site *site);

/* Between these the store stays open. STATE once the site was closed. */
int xv_site_enter(struct xv_site *site, xvsa_error **error) XV_MUST_CHECK;
void xv_site_leave(struct xv_site *site);
bool xv_site_is_closing(struct xv_site *site);
/* An agent lives in it. */
int xv_site_add_agent(struct xv_site *site, xvsa_error **error) XV_MUST_CHECK;
void xv_site_remove_agent(struct xv_site *site);

/* submit.c. The caller frees what is returned. */
int xv_site_submit(struct xv_site *site, const char *spec, const struct xv_call *call,
                   char **ret_id, xvsa_error **error) XV_MUST_CHECK;
int xv_site_control(struct xv_site *site, const char *id, int32_t action,
                    const struct xv_call *call, xvsa_error **error) XV_MUST_CHECK;
int xv_site_retry(struct xv_site *site, const char *id, const struct xv_call *call, char **ret_id,
                  xvsa_error **error) XV_MUST_CHECK;

/* document.c */
int xv_site_list_jobs(struct xv_site *site, uint32_t limit, const struct xv_call *call, char **ret,
                      xvsa_error **error) XV_MUST_CHECK;
int xv_site_job(struct xv_site *site, const char *id, const struct xv_call *call, char **ret,
                xvsa_error **error) XV_MUST_CHECK;
int xv_site_wait(struct xv_site *site, const char *id, const struct xv_call *call,
                 xvsa_error **error) XV_MUST_CHECK;
int xv_site_members(struct xv_site *site, const struct xv_call *call, char **ret,
                    xvsa_error **error) XV_MUST_CHECK;

#endif

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coord/kv_backend.h"

int xv_kv_etcd_open(const struct xv_kv_options *options, const char *rest,
                    const struct xv_call *call, struct xv_kv **ret, xvsa_error **error)
{
    (void)options, (void)call, (void)ret;
    return xv_fail(error, XVSA_ERR_UNSUPPORTED, XV_KV_COMPONENT,
                   "this build does not speak to etcd (%zu)", sizeof rest);
}

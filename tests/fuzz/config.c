/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Input: a configuration document of the command-line tool. A document that is accepted must answer
 * look-ups by every name it gives; one that is refused must say why.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct config *config)
{
    for (size_t i = 0; i < config->pool_count; i++) {
        const struct config_pool *pool = &config->pools[i];
        if (config_find_pool(config, pool->name) != pool || pool->urls.count == 0)
            abort();
        for (size_t j = 0; j < pool->proxy_count; j++) {
            if (pool->proxies[j].vm_uuid == NULL || pool->proxies[j].max_disks > 64)
                abort();
        }
    }
    for (size_t i = 0; i < config->repository_count; i++) {
        const struct config_repository *repository = &config->repositories[i];
        if (config_find_repository(config, repository->name) != repository ||
            repository->url == NULL)
            abort();
    }
    for (size_t i = 0; i < config->job_count; i++) {
        if (config_find_job(config, config->jobs[i].name) != &config->jobs[i] ||
            !json_is_object(config->jobs[i].job))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = NULL;
    char *problem = NULL;
    if (config_parse((const char *)data, size, &config, &problem)) {
        check(config);
        config_free(config);
    } else {
        if (problem == NULL || strlen(problem) == 0)
            abort();
        free(problem);
    }
    return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The kinds of coordination stores, made for one test each: memory, a file, a prefix of an etcd server
 * that all tests of a program share. Without an etcd program its tests are left out, visibly.
 */
#ifndef XV_TESTS_STORES_H
#define XV_TESTS_STORES_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coord/kv.h"
#include "unit.h"

enum store_kind { STORE_MEMORY, STORE_FILE, STORE_ETCD, STORE_KINDS };

struct stores {
    char folder[64];
};

static struct {
    pid_t pid; /* 0: there is no etcd */
    int port;
    char folder[64];
} stores_etcd;

/* Two ports that were free a moment ago; whoever else may have them is noticed. */
static inline void stores_free_ports(int ports[2])
{
    int sockets[2];
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(sockets[i], (struct sockaddr *)&address, sizeof address), 0);
        ck_assert_int_eq(getsockname(sockets[i], (struct sockaddr *)&address, &length), 0);
        ports[i] = ntohs(address.sin_port);
    }
    close(sockets[0]);
    close(sockets[1]);
}

/* The child: leaves nothing open, checks nothing. */
static inline void stores_exec_etcd(const char *client, const char *peer)
{
    char cluster[80];
    int null = open("/dev/null", O_RDWR);
    snprintf(cluster, sizeof cluster, "one=%s", peer);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(null, 1);
    dup2(null, 2);
    if (close_range(3, ~0U, 0) == 0)
        execlp("etcd", "etcd", "--name", "one", "--data-dir", stores_etcd.folder,
               "--listen-client-urls", client, "--advertise-client-urls", client,
               "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
               "--initial-cluster", cluster, (char *)NULL);
    _exit(127);
}

/* Whether the server says that it is well. */
static inline bool stores_etcd_is_well(void)
{
    static const char request[] = "GET /health HTTP/1.0\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)stores_etcd.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {.tv_sec = 2};
    char answer[2048] = "";
    size_t length = 0;
    ssize_t count = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0 &&
        connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)sizeof request - 1) {
        while ((count = recv(fd, answer + length, sizeof answer - 1 - length, 0)) > 0)
            length += (size_t)count;
    }
    close(fd);
    return strstr(answer, "\"health\":\"true\"") != NULL;
}

static inline void stores_stop_etcd(void)
{
    char command[128];
    if (stores_etcd.pid == 0)
        return;
    kill(stores_etcd.pid, SIGKILL);
    waitpid(stores_etcd.pid, NULL, 0);
    stores_etcd.pid = 0;
    snprintf(command, sizeof command, "rm -rf '%s'", stores_etcd.folder);
    ck_assert_int_eq(system(command), 0);
}

/* Starts a server; false when it ended, because one of its ports was taken by then. */
static inline bool stores_try_etcd(void)
{
    int ports[2];
    char client[64];
    char peer[64];
    snprintf(stores_etcd.folder, sizeof stores_etcd.folder, "/tmp/xvsa-etcd-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(stores_etcd.folder));
    stores_free_ports(ports);
    stores_etcd.port = ports[0];
    snprintf(client, sizeof client, "http://127.0.0.1:%d", ports[0]);
    snprintf(peer, sizeof peer, "http://127.0.0.1:%d", ports[1]);
    stores_etcd.pid = unit_fork();
    if (stores_etcd.pid == 0)
        stores_exec_etcd(client, peer);
    for (int i = 0; i < 1200; i++) {
        if (stores_etcd_is_well())
            return true;
        siginfo_t ended = {0};
        ck_assert_int_eq(waitid(P_PID, (id_t)stores_etcd.pid, &ended, WEXITED | WNOHANG | WNOWAIT),
                         0);
        if (ended.si_pid != 0)
            break;
        usleep(50000);
    }
    stores_stop_etcd();
    return false;
}

/* For an unchecked fixture: once a program. */
static inline void stores_start_etcd(void)
{
    if (system("command -v etcd >/dev/null 2>&1") != 0) {
        printf("skip: no etcd program is installed; its stores are left out\n");
        return;
    }
    for (int i = 0; i < 5; i++) {
        if (stores_try_etcd())
            return;
    }
    ck_abort_msg("etcd does not start");
}

static inline void stores_start(struct stores *stores)
{
    snprintf(stores->folder, sizeof stores->folder, "/tmp/xvsa-kv-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(stores->folder));
}

static inline void stores_stop(struct stores *stores)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", stores->folder);
    ck_assert_int_eq(system(command), 0);
}

/* Opens a site of the store; false when there is no store of that kind here. */
static inline bool stores_open_at(struct stores *stores, enum store_kind kind, const char *site,
                                  struct xv_kv **ret)
{
    char url[128] = "sqlite:";
    char prefix[128];
    xvsa_error *error = NULL;
    if (kind == STORE_ETCD && stores_etcd.pid == 0)
        return false;
    if (kind == STORE_FILE)
        snprintf(url, sizeof url, "sqlite:%s/state.db", stores->folder);
    if (kind == STORE_ETCD)
        snprintf(url, sizeof url, "etcd:http://127.0.0.1:%d", stores_etcd.port);
    snprintf(prefix, sizeof prefix, "/xvsa/1%s/%s/", stores->folder, site);
    struct xv_kv_options options = {.url = url, .prefix = prefix};
    ck_ok(xv_kv_open(&options, NULL, ret, &error), error);
    return true;
}

static inline bool stores_open(struct stores *stores, enum store_kind kind, struct xv_kv **ret)
{
    return stores_open_at(stores, kind, "site", ret);
}

#endif

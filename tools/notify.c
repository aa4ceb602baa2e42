/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The service manager's protocol is one datagram to the socket that it names in NOTIFY_SOCKET.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli.h"

void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* an abstract name */
    int descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (descriptor < 0 || sendto(descriptor, state, strlen(state), MSG_NOSIGNAL,
                                 (struct sockaddr *)&address, length) < 0)
        complain("warning: the service manager was not told \"%s\": %s", state, strerror(errno));
    if (descriptor >= 0)
        close(descriptor);
}

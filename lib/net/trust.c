/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The certificate verifier replaces OpenSSL's own for a connection: a leaf with a pinned digest is
 * accepted whatever its name, issuer and dates, which self-signed pool certificates need; anything else
 * goes through the CA chain and the host's name, or is refused.
 */
#include "net/trust.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

#define COMPONENT "net"
#define PINS_MAX  4096

struct xv_trust {
    pthread_mutex_t lock; /* pins, pin_count, pin_capacity */
    char (*pins)[XV_FINGERPRINT_TEXT];
    size_t pin_count;
    size_t pin_capacity;
    char *ca_file;
    bool use_ca;
    bool first_use;
};

/* Lower-case digits without separators; false unless exactly 64 of them are there. */
static bool normalise(const char *text, char fingerprint[XV_FINGERPRINT_TEXT])
{
    unsigned char digest[32];
    size_t length = 0;
    for (; *text != '\0'; text++) {
        if (*text == ':' || *text == ' ')
            continue;
        if (length == 64)
            return false;
        fingerprint[length++] = *text;
    }
    fingerprint[length] = '\0';
    if (length != 64 || xv_hex_decode(fingerprint, digest, sizeof digest) != 0)
        return false;
    xv_hex_encode(digest, sizeof digest, fingerprint);
    return true;
}

static bool is_pinned(const struct xv_trust *trust, const char *fingerprint)
{
    for (size_t i = 0; i < trust->pin_count; i++) {
        if (strcmp(trust->pins[i], fingerprint) == 0)
            return true;
    }
    return false;
}

/* Called with the lock held. */
static int add_pin(struct xv_trust *trust, const char *fingerprint, xvsa_error **error)
{
    if (is_pinned(trust, fingerprint))
        return 0;
    if (trust->pin_count == PINS_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, COMPONENT, "more than %d pinned certificates",
                       PINS_MAX);
    if (trust->pin_count == trust->pin_capacity) {
        size_t capacity = trust->pin_capacity == 0 ? 8 : trust->pin_capacity * 2;
        void *pins = realloc(trust->pins, capacity * sizeof trust->pins[0]);
        if (pins == NULL)
            return xv_fail_memory(error);
        trust->pins = pins;
        trust->pin_capacity = capacity;
    }
    memcpy(trust->pins[trust->pin_count++], fingerprint, XV_FINGERPRINT_TEXT);
    return 0;
}

int xv_trust_pin(struct xv_trust *trust, const char *text, xvsa_error **error)
{
    char fingerprint[XV_FINGERPRINT_TEXT];
    if (!normalise(text, fingerprint))
        return xv_fail(error, XVSA_ERR_INVALID, COMPONENT,
                       "\"%.80s\" is not a SHA-256 fingerprint of 64 hex digits", text);
    pthread_mutex_lock(&trust->lock);
    int rc = add_pin(trust, fingerprint, error);
    pthread_mutex_unlock(&trust->lock);
    return rc;
}

static bool digest_of(X509 *certificate, char fingerprint[XV_FINGERPRINT_TEXT])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    if (certificate == NULL || X509_digest(certificate, EVP_sha256(), digest, &length) != 1)
        return false;
    xv_hex_encode(digest, length, fingerprint);
    return true;
}

int xv_trust_pin_pem(struct xv_trust *trust, const char *pem, xvsa_error **error)
{
    char fingerprint[XV_FINGERPRINT_TEXT];
    size_t length = strlen(pem);
    BIO *bio = length > 1 << 20 ? NULL : BIO_new_mem_buf(pem, (int)length);
    X509 *certificate = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
    bool good = digest_of(certificate, fingerprint);
    X509_free(certificate);
    BIO_free(bio);
    if (!good)
        return xv_fail(error, XVSA_ERR_PROTOCOL, COMPONENT,
                       "the certificate is not readable as PEM");
    return xv_trust_pin(trust, fingerprint, error);
}

int xv_trust_new(const struct xv_trust_options *options, struct xv_trust **ret, xvsa_error **error)
{
    struct xv_trust *trust = calloc(1, sizeof *trust);
    if (trust == NULL)
        return xv_fail_memory(error);
    pthread_mutex_init(&trust->lock, NULL);
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < options->fingerprint_count; i++)
        rc = xv_trust_pin(trust, options->fingerprints[i], error);
    trust->first_use =
        options->first_use && options->fingerprint_count == 0 && options->ca_file == NULL;
    trust->use_ca = options->fingerprint_count == 0 && !trust->first_use;
    if (rc == 0 && trust->use_ca && options->ca_file != NULL) {
        trust->ca_file = strdup(options->ca_file);
        if (trust->ca_file == NULL)
            rc = xv_fail_memory(error);
    }
    if (rc != 0) {
        xv_trust_free(trust);
        return rc;
    }
    *ret = trust;
    return 0;
}

void xv_trust_free(struct xv_trust *trust)
{
    if (trust == NULL)
        return;
    pthread_mutex_destroy(&trust->lock);
    free(trust->pins);
    free(trust->ca_file);
    free(trust);
}

const char *xv_trust_ca_file(const struct xv_trust *trust, bool *ret_system)
{
    *ret_system = trust->use_ca && trust->ca_file == NULL;
    return trust->ca_file;
}

static bool is_trusted_leaf(struct xv_trust *trust, const char *fingerprint)
{
    pthread_mutex_lock(&trust->lock);
    bool trusted = is_pinned(trust, fingerprint);
    if (!trusted && trust->first_use && trust->pin_count == 0)
        trusted = add_pin(trust, fingerprint, NULL) == 0;
    pthread_mutex_unlock(&trust->lock);
    return trusted;
}

static int verify_chain(X509_STORE_CTX *context, struct xv_trust_check *check)
{
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(context);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, check->host) != 1 &&
        X509_VERIFY_PARAM_set1_host(param, check->host, 0) != 1) {
        snprintf(check->reason, sizeof check->reason, "its host name cannot be checked");
        return 0;
    }
    if (X509_verify_cert(context) == 1)
        return 1;
    snprintf(check->reason, sizeof check->reason, "%s",
             X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
    return 0;
}

static int verify(X509_STORE_CTX *context, void *argument)
{
    struct xv_trust_check *check = argument;
    check->reason[0] = '\0';
    check->refused = false;
    if (digest_of(X509_STORE_CTX_get0_cert(context), check->seen)) {
        if (is_trusted_leaf(check->trust, check->seen)) {
            X509_STORE_CTX_set_error(context, X509_V_OK);
            return 1;
        }
        if (check->trust->use_ca && verify_chain(context, check) == 1)
            return 1;
    }
    check->refused = true;
    if (X509_STORE_CTX_get_error(context) == X509_V_OK)
        X509_STORE_CTX_set_error(context, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

void xv_trust_attach(void *ssl_ctx, struct xv_trust_check *check)
{
    SSL_CTX *context = ssl_ctx;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(context, verify, check);
    SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
}

int xv_trust_fail(const struct xv_trust_check *check, const char *peer, xvsa_error **error)
{
    struct xv_trust *trust = check->trust;
    const char *seen = check->seen[0] == '\0' ? "none" : check->seen;
    if (trust->use_ca)
        return xv_fail(
            error, XVSA_ERR_TLS, COMPONENT,
            "the certificate of %s is not trusted: %s; seen sha256 %s; expected one that "
            "%s signed for this host",
            peer, check->reason, seen,
            trust->ca_file == NULL ? "a CA of the system" : trust->ca_file);
    pthread_mutex_lock(&trust->lock);
    char expected[XV_FINGERPRINT_TEXT] = "none";
    size_t others = trust->pin_count == 0 ? 0 : trust->pin_count - 1;
    if (trust->pin_count > 0)
        memcpy(expected, trust->pins[0], sizeof expected);
    pthread_mutex_unlock(&trust->lock);
    char more[48] = "";
    if (others > 0)
        snprintf(more, sizeof more, " or one of %zu others", others);
    return xv_fail(
        error, XVSA_ERR_TLS, COMPONENT,
        "the certificate of %s is not the pinned one: expected sha256 %s%s, seen sha256 %s", peer,
        expected, more, seen);
}

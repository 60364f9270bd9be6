// OpenSSL 3 for Swift: one static function per macro that Swift cannot import; no logic.
#ifndef GATEWAY_COPENSSL_SHIM_H
#define GATEWAY_COPENSSL_SHIM_H

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

static inline long gw_SSL_CTX_set_min_proto_version(SSL_CTX *c, int v) { return SSL_CTX_set_min_proto_version(c, v); }
static inline long gw_SSL_CTX_set_mode(SSL_CTX *c, long m) { return SSL_CTX_set_mode(c, m); }
static inline long gw_SSL_CTX_set_session_cache_mode(SSL_CTX *c, long m) { return SSL_CTX_set_session_cache_mode(c, m); }
static inline int gw_SSL_CTX_set1_groups_list(SSL_CTX *c, const char *l) { return (int)SSL_CTX_set1_groups_list(c, l); }
static inline int gw_SSL_CTX_set1_sigalgs_list(SSL_CTX *c, const char *l) { return (int)SSL_CTX_set1_sigalgs_list(c, l); }
static inline long gw_SSL_CTX_set_tlsext_servername_callback(SSL_CTX *c, int (*f)(SSL *, int *, void *)) {
    return SSL_CTX_set_tlsext_servername_callback(c, f);
}
static inline long gw_SSL_CTX_set_tlsext_servername_arg(SSL_CTX *c, void *a) { return SSL_CTX_set_tlsext_servername_arg(c, a); }
static inline long gw_SSL_set_tlsext_host_name(SSL *s, const char *n) { return SSL_set_tlsext_host_name(s, n); }
static inline void gw_BIO_set_retry_read(BIO *b) { BIO_set_retry_read(b); }
static inline void gw_BIO_clear_retry_flags(BIO *b) { BIO_clear_retry_flags(b); }
static inline int gw_SSL_CTX_add1_chain_cert(SSL_CTX *c, X509 *x) { return (int)SSL_CTX_add1_chain_cert(c, x); }
static inline int gw_SSL_CTX_build_cert_chain(SSL_CTX *c, int f) { return (int)SSL_CTX_build_cert_chain(c, f); }
static inline EVP_PKEY *gw_EVP_EC_gen(const char *curve) { return EVP_EC_gen(curve); }
static inline unsigned long gw_ERR_reason(void) { return ERR_peek_last_error(); }
static inline const SSL_SESSION *gw_SSL_get0_session(SSL *s) { return SSL_get0_session(s); }
static inline long gw_SSL_CTX_set_dh_auto(SSL_CTX *c) { return SSL_CTX_set_dh_auto(c, 1); }
static inline int gw_BIO_pending(BIO *b) { return (int)BIO_pending(b); }
static inline void gw_OPENSSL_free(void *p) { OPENSSL_free(p); }
static inline int gw_SSL_CTX_set_app_data(SSL_CTX *c, void *d) { return SSL_CTX_set_app_data(c, d); }
static inline void *gw_SSL_CTX_get_app_data(SSL_CTX *c) { return SSL_CTX_get_app_data(c); }
static inline int gw_GENERAL_NAME_count(GENERAL_NAMES *n) { return sk_GENERAL_NAME_num(n); }
static inline GENERAL_NAME *gw_GENERAL_NAME_at(GENERAL_NAMES *n, int i) { return sk_GENERAL_NAME_value(n, i); }
static inline void gw_GENERAL_NAMES_free(GENERAL_NAMES *n) { GENERAL_NAMES_free(n); }
static inline int gw_GENERAL_NAME_is_dns(const GENERAL_NAME *n) { return n->type == GEN_DNS; }
static inline ASN1_STRING *gw_GENERAL_NAME_dns(const GENERAL_NAME *n) { return n->d.dNSName; }
static inline long gw_SSL_CTX_set_tlsext_ticket_key_evp_cb(
    SSL_CTX *c, int (*f)(SSL *, unsigned char *, unsigned char *, EVP_CIPHER_CTX *, EVP_MAC_CTX *, int)) {
    return SSL_CTX_set_tlsext_ticket_key_evp_cb(c, f);
}
// A ticket key reaches the MAC through an OSSL_PARAM array, which is awkward to build in Swift.
static inline int gw_ticket_mac_init(EVP_MAC_CTX *m, const unsigned char *key, size_t count) {
    OSSL_PARAM p[3] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key, count),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(m, p);
}

#endif

// Preloaded into a process, it appends to $CONNECTIONS every host that is looked up and every address outside this
// machine that is connected or sent to, whichever library does it, and lets none of it through.
#include <arpa/inet.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <netdb.h>
#include <sys/socket.h>

namespace {

void record(const char *what) {
  const char *path = std::getenv("CONNECTIONS");
  if (FILE *file = path ? std::fopen(path, "a") : nullptr) {
    std::fprintf(file, "%s\n", what);
    std::fclose(file);
  }
}

bool leaves(const sockaddr *address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address == nullptr) return false;
  if (address->sa_family == AF_INET) {
    const in_addr *host = &reinterpret_cast<const sockaddr_in *>(address)->sin_addr;
    if (ntohl(host->s_addr) >> 24 == 127 || host->s_addr == 0) return false;
    inet_ntop(AF_INET, host, text, sizeof text);
  } else if (address->sa_family == AF_INET6) {
    const in6_addr *host = &reinterpret_cast<const sockaddr_in6 *>(address)->sin6_addr;
    if (IN6_IS_ADDR_LOOPBACK(host) || IN6_IS_ADDR_UNSPECIFIED(host)) return false;
    if (IN6_IS_ADDR_V4MAPPED(host) && host->s6_addr[12] == 127) return false;
    inet_ntop(AF_INET6, host, text, sizeof text);
  } else {
    return false;
  }
  record(text);
  return true;
}

template <typename Function> Function real(const char *name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" int connect(int descriptor, const sockaddr *address, socklen_t length) {
  if (leaves(address)) {
    errno = ENETUNREACH;
    return -1;
  }
  return real<int (*)(int, const sockaddr *, socklen_t)>("connect")(descriptor, address, length);
}

extern "C" ssize_t sendto(int descriptor, const void *data, size_t size, int flags, const sockaddr *address,
                          socklen_t length) {
  if (leaves(address)) {
    errno = ENETUNREACH;
    return -1;
  }
  return real<ssize_t (*)(int, const void *, size_t, int, const sockaddr *, socklen_t)>("sendto")(
      descriptor, data, size, flags, address, length);
}

extern "C" int getaddrinfo(const char *host, const char *service, const addrinfo *hints, addrinfo **found) {
  char address[sizeof(in6_addr)];
  if (host != nullptr && std::strcmp(host, "localhost") != 0 && inet_pton(AF_INET, host, address) != 1 &&
      inet_pton(AF_INET6, host, address) != 1) {
    record(host);
    return EAI_NONAME;
  }
  return real<int (*)(const char *, const char *, const addrinfo *, addrinfo **)>("getaddrinfo")(host, service, hints,
                                                                                                 found);
}

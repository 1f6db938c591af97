/* Looks a name up as any program does, for tests/names and tests/vm/run. */
#include <netdb.h>

int main(void)
{
    struct addrinfo *found;

    return getaddrinfo("manifests.test", "80", 0, &found);
}

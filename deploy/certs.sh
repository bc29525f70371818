# The one-shot service `certs`: makes what is not there yet of an authority, the server's
# certificate, and one for each of PARTS clients. SERVER_HOST: as other hosts know the server.
set -eu
set -- --host server --host "$SERVER_HOST"
for number in $(seq "$PARTS"); do
    [ -e "/certs/clients/client-$number/client.key" ] || set -- "$@" --client "client-$number"
done
# The server's health check is a client, too.
[ -e /certs/server/client.key ] || set -- "$@" --client health
fedaq certs /certs "$@"
if [ -d /certs/clients/health ]; then
    cp -p /certs/clients/health/client.* /certs/server
    rm -r /certs/clients/health
fi
# What a viewer of the page must know.
if [ ! -s /certs/server/page.token ]; then
    umask 077
    python -c 'import secrets; print(secrets.token_hex(24))' > /certs/server/page.token
fi

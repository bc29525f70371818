# The one-shot service `certs`: makes what is not there yet of an authority, and of a folder for the
# server, for each relay, which is a server and a client, and for the clients of each relay.
set -eu
of=${1:-/certs}
for name in server north south; do
    if [ ! -e "$of/of/$name/client.key" ]; then
        rm -rf "$of/server"
        # The health check is a client, too; a relay's has the relay's own certificate.
        client=$name
        [ "$name" != server ] || client=health
        fedaq certs "$of" --host "$name" --host localhost --client "$client"
        cp -p "$of"/server/* "$of/clients/$client"/client.* "$of/of/$name"
    fi
done
number=0
for relay in north south; do
    for _ in 1 2 3; do
        number=$((number + 1))
        if [ ! -e "$of/of/$relay-clients/client-$number/client.key" ]; then
            fedaq certs "$of" --client "client-$number"
            cp -pR "$of/clients/client-$number" "$of/of/$relay-clients"
        fi
    done
done
# What a viewer of the page must know.
if [ ! -s "$of/of/server/page.token" ]; then
    umask 077
    python -c 'import secrets; print(secrets.token_hex(24))' > "$of/of/server/page.token"
fi

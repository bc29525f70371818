# A replica of a service of clients: takes a part of the data that no other replica has, and the
# certificate of that part, of those that are there. The kernel holds the lock for as long as the
# client lives, and lets go of it however it dies; a replica too many waits to take its place.
set -eu
server=${SERVER:-server:50051}
waiting=
while true; do
    for number in $(seq "$PARTS"); do
        folder=/certs/clients/client-$number
        [ -e "$folder/ca.crt" ] || continue
        exec 9< "$folder/ca.crt"
        if flock --nonblock 9; then
            exec fedaq client --task digits --server "$server" --tls "$folder" \
                --partition "$number/$PARTS"
        fi
    done
    [ "$waiting" ] || echo "all parts are taken; waiting for one"
    waiting=yes
    sleep 2
done

vcl 4.1;

import std;
import xkey;

backend default {
    .host = "127.0.0.1";
    .port = "@PORT@";
}

acl purgers {
    "127.0.0.1";
}

sub vcl_recv {
    if (req.method == "PURGE" || req.method == "BAN") {
        if (client.ip !~ purgers) {
            return (synth(405, "Not allowed"));
        }
        if (req.http.xkey-purge) {
            return (synth(200, "Purged " + xkey.purge(req.http.xkey-purge)));
        }
        if (req.http.xkey-softpurge) {
            return (synth(200, "Marked stale " + xkey.softpurge(req.http.xkey-softpurge)));
        }
        if (req.http.x-ban-tag) {
            # The field lists tags separated by spaces.
            ban("obj.http.xkey ~ (^|\s)" + req.http.x-ban-tag + "(\s|$)");
            return (synth(200, "Banned"));
        }
        if (req.http.x-ban-all) {
            ban("obj.status != 0");
            return (synth(200, "Banned all"));
        }
        return (purge);
    }
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "hit";
    } else {
        set resp.http.X-Cache = "miss";
    }
    unset resp.http.xkey;
}

CASE WHEN octet_length(replace(relname, {table}, {past})) > 63 THEN left(relname, 48) || '_' || left(md5(relname), 8)
      WHEN strpos(relname, {table}) > 0 THEN replace(relname, {table}, {past})
      ELSE left(relname, 58) || '_past' END

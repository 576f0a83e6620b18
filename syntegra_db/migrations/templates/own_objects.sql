  IF EXISTS (
{changed_elsewhere}
  ) THEN
    RAISE EXCEPTION 'a table was renamed or dropped at the same time, and one of that name in another schema would be changed'
      USING HINT = 'It was rolled back. This shows what is missing: syntegra-db verify';
  END IF;
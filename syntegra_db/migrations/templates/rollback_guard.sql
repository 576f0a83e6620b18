  IF unfinished_direction = 'upgrade' THEN
    RAISE EXCEPTION 'the upgrade of revision {revision} is unfinished'
      USING HINT = 'Finish it with the file that upgrades, or undo it: syntegra-db downgrade {before}';
  ELSIF stamp IS DISTINCT FROM '{revision}' THEN
    RAISE EXCEPTION 'this file reverts revision {revision}, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Revert the revisions one by one, the newest first.';
  END IF;

  IF stamp IS DISTINCT FROM '{revision}' AND (stamp IS DISTINCT FROM {before} OR unfinished IS NULL) THEN
    RAISE EXCEPTION 'this file reverts revision {revision}, but the database is at %',
      coalesce('revision ' || stamp, 'no revision')
      USING HINT = 'Revert the revisions one by one, the newest first.';
  END IF;

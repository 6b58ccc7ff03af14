-- Orthanc sends a study to Pleura as soon as it has been quiet for StableAge, and again whenever it has grown since.
-- What Pleura has made itself goes along; it is accepted and ignored there.
function OnStableStudy(study, tags, metadata)
  RestApiPost('/modalities/pleura/store', DumpJson({ Resources = { study }, Synchronous = false }))
end

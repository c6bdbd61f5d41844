return await Ublkback.UblkbackProgram.RunAsync(args);

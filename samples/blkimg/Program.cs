using BlkImg;
using Ublkback;

// A block backend of one's own: ublkback, with one more kind of image. 'blkimg daemon' serves guests, with targets such
// as blkimg:/images/disk.img; 'blkimg --help' has the rest.
return await UblkbackProgram.RunAsync(args, catalog => catalog
    .AddImage("blkimg", (target, opening) => new FileImage(target.Location, opening.IsReadOnly)));
